"""`bench show`: one record, all of it."""

from __future__ import annotations

import click

from bench.reports.details import record_details, render_details
from bench.reports.summary import render_json
from bench.results.location import locate_store
from bench.results.store import Store


@click.command(short_help="One record, all of it.")
@click.argument("record_id", metavar="RECORD")
@click.option("--results", metavar="DIR", help="The store (else $BENCH_RESULTS).")
@click.option("--json", "as_json", is_flag=True, help="The record with its summary, on one line.")
def show(record_id: str, results: str | None, as_json: bool) -> None:
    """Show a record by its id or by a unique part of 4 or more characters of its beginning or end."""
    record = Store(locate_store(results)).find(record_id)
    click.echo(render_json(record) if as_json else render_details(record_details(record)), nl=as_json)
