"""`bench run`: from flags to a plan, from the plan to records, from the records to a table and an exit code."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from bench.cli.asked import FALLBACK, duration, measuring, options_told, share, told_of, understood
from bench.cli.display import Lines, Terminal, display
from bench.cli.names import Names
from bench.cli.planned import check_plan, print_plan, too_short
from bench.cli.resume import cases_told, check_same, interrupted_sweep, resume_command
from bench.errors import CaseError, InvalidMeasurement, PrerequisiteError, UsageError
from bench.reports.render import render_terminal
from bench.reports.summary import render_json
from bench.reports.table import build_table
from bench.results.journal import Journal
from bench.results.location import locate_store
from bench.results.record import Record
from bench.results.store import Store
from bench.runner import Sweep
from bench.types import SYNTHETIC


@click.command()
@click.option("--backend", "backends", type=Names(), help="Runtimes to measure (`bench list backends`).")
@click.option("--model", "models", type=Names(), help="MODEL-SCHEME, as in deepseek-7b-int8.")
@click.option("--workload", "workloads", type=Names(), default="pp512,tg128", show_default=True)
@click.option("--device", "devices", type=Names(), help="Devices, as the backend names them.")
@click.option("--provider", metavar="EP", help="Execution provider, by its short or its full name.")
@click.option("--isa", metavar="I", help="Instruction set that a processor's kernels are held to, as in avx2.")
@click.option("--fidelity", type=click.Choice(["native", "exact"]), default="native", show_default=True)
@FALLBACK
@click.option("--weights", default="synthetic", show_default=True, help="synthetic, or a GGUF file.")
@click.option("--launches", type=int, default=1, show_default=True, help="Fresh processes; 5 to publish.")
@click.option("--repetitions", type=int, default=5, show_default=True, help="Samples of each case in a launch.")
@click.option("--budget", metavar="10m", help="Go on sampling each case for this long.")
@click.option("--chunk", type=int, default=512, show_default=True, help="Most tokens of a prefill step.")
@click.option(
    "--set",
    "options",
    metavar="KEY=VALUE",
    multiple=True,
    help="Option of the backend (`bench list options`); ep.NAME=VALUE of the provider.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of token ids and of the order of cases.")
@click.option("--python", metavar="PATH", help="Interpreter of the workers (docs/environments.md).")
@measuring
@click.option("--json", "as_json", is_flag=True, help="Print records, one a line, and nothing else.")
@click.option("--plan", "only_plan", is_flag=True, help="Print what would be executed and what it needs.")
@click.option("--resume", is_flag=True, help="Execute what the last interrupted sweep still misses.")
def run(
    devices: tuple[str, ...] | None,
    isa: str | None,
    options: tuple[str, ...],
    budget: str | None,
    allow_fallback: str | None,
    python: str | None,
    waiting: dict[str, Any],
    results: str | None,
    as_json: bool,
    only_plan: bool,
    resume: bool,
    **asked: Any,
) -> int:
    """Measure models on backends and keep a record of every case.

    bench run --backend onnx --model smollm2-135m-int8
    """
    store, goes_on = Store(locate_store(results)), resume_command(results)
    if resume:
        journal = interrupted_sweep(store)
        with nullcontext() if only_plan else journal.held():
            return _sweep(journal.plan, store, journal, only_plan, as_json, goes_on)
    asked["weights"], asked["models"] = _weights(asked["weights"], asked["models"] or ())
    if not asked["backends"] or (not asked["models"] and asked["weights"] == SYNTHETIC):
        flag, noun = ("--model", "models") if asked["backends"] else ("--backend", "backends")
        raise UsageError("is missing", where=flag, remedy=f"`bench list {noun}` shows what there is")
    told = {
        "request": {
            **asked,
            "devices": devices or (None,),
            "allow_fallback": share(allow_fallback),
            "options": options_told([*options, f"isa={isa}"] if isa else options),
        },
        "budget_s": duration("--budget", budget) if budget else None,
        **told_of(**waiting),
        "python": python,
        "command": shlex.join(["bench", *sys.argv[1:]]),
    }
    return _sweep(told, store, None, only_plan, as_json, goes_on)


def _sweep(
    told: dict[str, Any], store: Store, journal: Journal | None, only_plan: bool, as_json: bool, goes_on: str
) -> int:
    """Plan what was told, check that it fits, and execute what `journal` misses of it; None: all, with a new one."""
    asked = understood(told)
    if journal:
        check_same(journal, asked.plan, asked.keys)
    missing = set(journal.missing() if journal else asked.keys)
    due = asked.due(missing)
    if only_plan:
        print_plan(asked.plan, due, missing)
    check_plan(due)
    if told["timeout_s"] and (warning := too_short(due, told["timeout_s"])):
        click.echo(warning, err=True)
    if only_plan:
        return 0
    start = partial(asked.sweep, due, store)
    if journal:
        click.echo(f"resumes `{told['command']}`: other flags of this call are not looked at", err=True)
        return _execute(partial(start, journal=journal), store, as_json, goes_on)
    store.check_writable()
    kept = {**told, "request": asdict(asked.request), "cases": cases_told(asked.plan)}
    journal = Journal.create(store, kept, asked.keys)
    with journal.held():
        return _execute(partial(start, journal=journal), store, as_json, goes_on)


def _weights(told: str, models: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The absolute path of a file of weights, whose model `--model` may name; anything else as it is."""
    if told == SYNTHETIC:
        return told, models
    path = Path(told).absolute()
    if not path.is_file():
        what = "is not wired" if told.startswith("hub:") or path.is_dir() else "is no file"
        raise UsageError(f"{told} {what}", where="--weights", remedy="give synthetic, or the path of a GGUF file")
    if len(models) > 1:
        raise UsageError("one file holds one model", where="--model", remedy="give one name, or none")
    return str(path), models


def _execute(start: Callable[..., Sweep], store: Store, as_json: bool, goes_on: str) -> int:
    """Execute the sweep and show what it left; the exit code is the most serious of its records'."""
    records: list[Record] = []
    with display() as watcher:

        def observe(record: Record) -> None:
            records.append(record)
            if as_json:
                click.echo(render_json(record))
            say(watcher, record, store)

        sweep = start(watcher=watcher, observe=observe)
        try:
            sweep.execute()
        except (KeyboardInterrupt, BrokenPipeError) as error:  # nobody reads the records any more
            watcher.say(f"interrupted; what is measured is kept in {store.root}; `{goes_on}` goes on")
            raise KeyboardInterrupt from error
    if not as_json:
        if sys.stdout.isatty():
            click.echo()
        click.echo(render_terminal(build_table(records), color=sys.stdout.isatty()), nl=False)
        click.echo(f"\n{len(records)} record{'s' * (len(records) != 1)} in {store.root}", err=True)
    return exit_code(records)


def exit_code(records: Sequence[Record]) -> int:
    """The most serious of 5, 4 and 3; `unsupported` and `unproven` alone are 0."""
    codes = {0}
    for record in records:
        if record.status == "invalid":
            codes.add(InvalidMeasurement.exit_code)
        elif record.status == "failed":
            prerequisite = record.reason is not None and record.reason.code == "prerequisite"
            codes.add(PrerequisiteError.exit_code if prerequisite else CaseError.exit_code)
    return max(codes)


def say(watcher: Terminal | Lines, record: Record, store: Store) -> None:
    """One line for a record that is not what was hoped for, and where its worker's log lies."""
    if record.status in ("ok", "unproven") or record.reason is None:
        return
    identity, reason = record.identity, record.reason
    text = f"{record.status}: {identity.model}-{identity.scheme} {identity.backend} {identity.workload.name}: "
    text += f"{reason.phase}: " if reason.phase else ""
    text += reason.what + (f" ({reason.cause})" if reason.cause else "")
    watcher.say(text + (f"; {reason.remedy}" if reason.remedy else ""))
    log = store.launch_path(record.launch_id) / "worker.log"
    if record.status == "failed" and log.is_file():
        watcher.say(f"  log: {log}")
