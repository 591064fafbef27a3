"""`bench export llama-bench`: records in that tool's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bench.cli.selection import selected, selectors
from bench.cli.writing import write_whole
from bench.interchange.export import llama_bench_row, row_line
from bench.interchange.llama_bench import FORMAT
from bench.results.location import locate_store
from bench.results.store import Store
from bench.spec import load_catalog

TOLD = ("ok", "unproven")
"""Statuses that are exported unless others are named: what must not be believed stays here."""


@click.command(FORMAT, short_help="Records as that tool writes them.")
@selectors
@click.option("--output", metavar="FILE", type=click.Path(path_type=Path), help="Else standard output, as for -.")
def export_records(results: str | None, output: Path | None, **asked: Any) -> None:
    """Write one line of llama-bench's JSONL for each record.

    Those of the newest sweep of each series that are ok or unproven, unless options say otherwise. Workloads that
    llama-bench has not are left out.
    """
    records = selected(Store(locate_store(results)), **{**asked, "statuses": asked["statuses"] or TOLD})
    models = load_catalog().models
    lines, left_out = [], []
    for record in records:
        model = models.get(record.identity.model)
        row = llama_bench_row(record, model.arch if model else None)
        if row is None:
            left_out.append(record.identity.workload.name)
        else:
            lines.append(row_line(row))
    if left_out:
        names = ", ".join(sorted(set(left_out)))
        click.echo(f"bench: {len(left_out)} records left out, for llama-bench has no such workload: {names}", err=True)
    if output is None or str(output) == "-":
        for line in lines:
            click.echo(line)
    elif records:
        write_whole(output, "".join(f"{line}\n" for line in lines).encode())
