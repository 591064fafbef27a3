"""`bench nightly`: executes a plan, judges every series against its history, confirms what became slower."""

from __future__ import annotations

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from bench.cli.asked import measuring, told_of
from bench.cli.names import Names
from bench.nightly.plan import check, chosen, github_matrix, read_plan
from bench.results.location import locate_store
from bench.results.store import Store
from bench.spec import load_catalog

File = partial(click.Path, path_type=Path, dir_okay=False)


@click.command(short_help="Execute a plan and say what became slower.")
@click.argument("plan", metavar="PLAN.toml", type=File())
@click.option("--label", "labels", type=Names(), default="", help="Only cases with these labels.")
@click.option("--emit", type=click.Choice(["github"]), help="Print a matrix for CI; executes nothing.")
@click.option("--strict", is_flag=True, help="Exit 11 for what is only suspected, 12 for too little data.")
@click.option("--summary", metavar="FILE", type=File(), help="Write Markdown below 60 kB.")
@click.option("--junit", metavar="FILE", type=File(), help="Write XML, one test case for each series.")
@click.option("--json", "as_json", is_flag=True, help="Print one object and nothing else.")
@measuring
def nightly(
    plan: Path,
    labels: tuple[str, ...],
    emit: str | None,
    strict: bool,
    summary: Path | None,
    junit: Path | None,
    as_json: bool,
    waiting: dict[str, Any],
    results: str | None,
) -> int:
    """Execute the cases of PLAN.toml and hold each series against its last 30 nights.

    Exits with 10 where interleaved pairs confirmed a regression, else as `bench run` does. A night that was
    interrupted goes on where it was. docs/nightly.md describes the plan and every verdict.
    """
    read = read_plan(plan)
    entries = chosen(read, labels)
    if emit:
        click.echo(json.dumps(github_matrix(entries), separators=(",", ":")))
        return 0
    from bench.cli.night import Outputs, spend_night  # scipy, which may be missing, and --emit needs none

    shared = {
        **told_of(**waiting),
        "command": shlex.join(["bench", *sys.argv[1:]]),
    }
    check(entries, load_catalog(waiting["model_files"]))
    outputs = Outputs(summary=summary, junit=junit, as_json=as_json)
    return spend_night(read, entries, Store(locate_store(results)), outputs, shared=shared, strict=strict)
