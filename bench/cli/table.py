"""`bench table`: the records of the store as a table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from bench.cli.selection import selected, selectors
from bench.reports.render import render_csv, render_markdown, render_terminal
from bench.reports.summary import render_json
from bench.reports.table import Table, build_table
from bench.results.location import locate_store
from bench.results.store import Store

FORMATS: dict[str, Callable[[Table], str]] = {"markdown": render_markdown, "csv": render_csv}


@click.command(short_help="The records of the store as a table.")
@selectors
@click.option("--format", "form", type=click.Choice(["terminal", *FORMATS, "json"]), default="terminal")
def table(results: str | None, form: str, **asked: Any) -> None:
    """Show the store's records, those of the newest sweep of each series."""
    records = selected(Store(locate_store(results)), **asked)
    if not records:
        return
    if form == "json":
        for record in records:
            click.echo(render_json(record))
    elif form in FORMATS:
        click.echo(FORMATS[form](build_table(records)), nl=False)
    else:
        click.echo(render_terminal(build_table(records), color=sys.stdout.isatty()), nl=False)
