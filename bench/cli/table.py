"""`bench table`: the records of the store as a table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import get_args

import click

from bench.cli.run import Names
from bench.errors import StoreError, unknown_name
from bench.reports.render import render_csv, render_markdown, render_terminal
from bench.reports.summary import render_json
from bench.reports.table import Table, build_table, latest
from bench.results.location import locate_store
from bench.results.record import Record
from bench.results.schema import Status
from bench.results.store import Store

FORMATS: dict[str, Callable[[Table], str]] = {"markdown": render_markdown, "csv": render_csv}


@click.command(short_help="The records of the store as a table.")
@click.option("--backend", "backends", type=Names(), help="Only these backends.")
@click.option("--model", "models", type=Names(), help="Only these models (MODEL or MODEL-SCHEME).")
@click.option("--workload", "workloads", type=Names(), help="Only these workloads.")
@click.option("--status", "statuses", type=Names(), help="Only these statuses.")
@click.option("--all", "everything", is_flag=True, help="Every sweep, not only the newest of each series.")
@click.option("--format", "form", type=click.Choice(["terminal", *FORMATS, "json"]), default="terminal")
@click.option("--results", metavar="DIR", help="The store (else $BENCH_RESULTS).")
def table(
    backends: tuple[str, ...] | None,
    models: tuple[str, ...] | None,
    workloads: tuple[str, ...] | None,
    statuses: tuple[str, ...] | None,
    everything: bool,
    form: str,
    results: str | None,
) -> None:
    """Show the store's records, those of the newest sweep of each series."""

    for status in statuses or ():
        if status not in get_args(Status):
            raise unknown_name("status", status, get_args(Status), where="--status")

    def wanted(record: Record) -> bool:
        identity = record.identity
        named = {identity.model, f"{identity.model}-{identity.scheme}"}
        return (
            (not backends or identity.backend in backends)
            and (not models or not named.isdisjoint(models))
            and (not workloads or identity.workload.name in workloads)
            and (not statuses or record.status in statuses)
        )

    def unreadable(error: StoreError) -> None:
        click.echo(f"bench: passed over: {error}", err=True)

    store = Store(locate_store(results))
    records = list(store.records(wanted, unreadable))
    if not everything:
        records = latest(records)
    if not records:
        click.echo(f"bench: no such records in {store.root}", err=True)
    elif form == "json":
        for record in records:
            click.echo(render_json(record))
    elif form in FORMATS:
        click.echo(FORMATS[form](build_table(records)), nl=False)
    else:
        click.echo(render_terminal(build_table(records), color=sys.stdout.isatty()), nl=False)
