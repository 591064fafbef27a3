"""`bench show`: one record, all of it."""

from __future__ import annotations

import click

from bench.reports.details import record_details, render_details
from bench.reports.summary import render_json
from bench.results.location import locate_store
from bench.results.record import encode
from bench.results.redact import redact
from bench.results.store import Store


@click.command(short_help="One record, all of it.")
@click.argument("record_id", metavar="RECORD")
@click.option("--results", metavar="DIR", help="The store (else $BENCH_RESULTS).")
@click.option("--json", "as_json", is_flag=True, help="The record with its summary, on one line.")
@click.option("--redacted", is_flag=True, help="Without what tells whose machine it was; with --json to be published.")
def show(record_id: str, results: str | None, as_json: bool, redacted: bool) -> None:
    """Show a record by its id or by a unique part of 4 or more characters of its beginning or end.

    With --redacted --json it is what a store holds, without the summary, which is computed whenever it is read.
    """
    record = Store(locate_store(results)).find(record_id)
    if redacted:
        record = redact(record)
    if as_json:
        click.echo(encode(record).decode().rstrip("\n") if redacted else render_json(record))
    else:
        click.echo(render_details(record_details(record)), nl=False)
