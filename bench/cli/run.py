"""`bench run`: from flags to a plan, from the plan to records, from the records to a table and an exit code."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from bench import registry
from bench.artifacts.imported import model_name, open_weights
from bench.cli.display import Lines, Terminal, display
from bench.cli.planned import check_plan, default_timeout_s, due_of, print_plan, too_short
from bench.cli.resume import cases_told, check_same, interrupted_sweep, resume_command
from bench.environments.host_file import locate_host_file, read_host_file, read_meter
from bench.errors import CaseError, InvalidMeasurement, PrerequisiteError, UsageError
from bench.plan import Request, make_plan
from bench.preparing import Settings
from bench.reports.render import render_terminal
from bench.reports.summary import render_json
from bench.reports.table import build_table
from bench.results.journal import Journal
from bench.results.location import locate_store
from bench.results.record import Record
from bench.results.store import Store
from bench.runner import Sweep, planned_keys
from bench.spec import Resolved, definition_hash, load_catalog
from bench.types import SYNTHETIC
from bench.units import parse_duration


class Names(click.ParamType[tuple[str, ...]]):
    """A comma-separated list."""

    name = "A[,B…]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())


WAITING = ("idle_s", "max_wait_s", "cool_to_c")


@click.command()
@click.option("--backend", "backends", type=Names(), help="Runtimes to measure (`bench list backends`).")
@click.option("--model", "models", type=Names(), help="MODEL-SCHEME, as in deepseek-7b-int8.")
@click.option("--workload", "workloads", type=Names(), default="pp512,tg128", show_default=True)
@click.option("--device", "devices", type=Names(), help="Devices, as the backend names them.")
@click.option("--provider", metavar="EP", help="ONNX Runtime execution provider.")
@click.option("--isa", metavar="I", help="Instruction set that a processor's kernels are held to, as in avx2.")
@click.option("--fidelity", type=click.Choice(["native", "exact"]), default="native", show_default=True)
@click.option("--weights", default="synthetic", show_default=True, help="synthetic, or a GGUF file.")
@click.option("--launches", type=int, default=1, show_default=True, help="Fresh processes; 5 to publish.")
@click.option("--repetitions", type=int, default=5, show_default=True, help="Samples of each case in a launch.")
@click.option("--budget", metavar="10m", help="Go on sampling each case for this long.")
@click.option("--chunk", type=int, default=512, show_default=True, help="Most tokens of a prefill step.")
@click.option("--set", "options", metavar="KEY=VALUE", multiple=True, help="Option of the backend.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of token ids and of the order of cases.")
@click.option("--timeout", metavar="1h", help="Most time of one launch; else 1h, or 4 times what is expected.")
@click.option(
    "--idle", metavar="30s", default="30s", show_default=True, help="Read power so long before anything loads."
)
@click.option("--cool-to", metavar="C", type=float, help="Begin when no device is warmer, in °C.")
@click.option("--max-wait", metavar="10m", default="10m", show_default=True, help="For another bench, or to cool down.")
@click.option("--python", metavar="PATH", help="Interpreter of the workers (docs/environments.md).")
@click.option("--host", type=click.Path(path_type=Path), help="How this machine executes workers (else $BENCH_HOST).")
@click.option("--models", "model_files", type=click.Path(path_type=Path), multiple=True, help="More models.toml.")
@click.option("--results", metavar="DIR", help="The store (else $BENCH_RESULTS).")
@click.option("--json", "as_json", is_flag=True, help="Print records, one a line, and nothing else.")
@click.option("--plan", "only_plan", is_flag=True, help="Print what would be executed and what it needs.")
@click.option("--resume", is_flag=True, help="Execute what the last interrupted sweep still misses.")
def run(
    devices: tuple[str, ...] | None,
    isa: str | None,
    options: tuple[str, ...],
    budget: str | None,
    timeout: str | None,
    idle: str,
    max_wait: str,
    cool_to: float | None,
    python: str | None,
    host: Path | None,
    model_files: tuple[Path, ...],
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
            "options": _pairs([*options, f"isa={isa}"] if isa else options),
        },
        "budget_s": _duration("--budget", budget) if budget else None,
        "timeout_s": _duration("--timeout", timeout) if timeout else None,
        "idle_s": _patience("--idle", idle),
        "max_wait_s": _patience("--max-wait", max_wait),
        "cool_to_c": cool_to,
        "model_files": [str(path.absolute()) for path in model_files],
        "python": python,
        "host": str(named) if (named := locate_host_file(host)) else None,
        "command": shlex.join(["bench", *sys.argv[1:]]),
    }
    return _sweep(told, store, None, only_plan, as_json, goes_on)


def _sweep(
    told: dict[str, Any], store: Store, journal: Journal | None, only_plan: bool, as_json: bool, goes_on: str
) -> int:
    """Plan what was told, check that it fits, and execute what `journal` misses of it; None: all, with a new one."""
    request = msgspec.convert(told["request"], Request)
    catalog = load_catalog([Path(path) for path in told["model_files"]])
    if request.weights != SYNTHETIC:
        found = _in_file(request)
        catalog, request = replace(catalog, file=found), replace(request, models=(found.model,))
    asked_for = {name: registry.load(name) for name in request.backends}
    plan = make_plan(request, catalog, asked_for)
    adapters = {adapter.name: adapter for adapter in asked_for.values()}
    host_file = Path(told["host"]) if told.get("host") else None
    settings = Settings(
        launches=request.launches,
        repetitions=request.repetitions,
        budget_s=told["budget_s"],
        python=told["python"],
        host=read_host_file(host_file),
        meter=read_meter(host_file),
        **{key: told[key] for key in WAITING if key in told},  # journals of before have none
        seed=request.seed,
        targets={adapter.name: registry.target(name) for name, adapter in asked_for.items()},
    )
    keys = planned_keys(plan, settings)
    if journal:
        check_same(journal, plan, keys)
    missing = set(journal.missing() if journal else keys)
    due = due_of(plan, adapters, settings, missing)
    if only_plan:
        print_plan(plan, due, missing)
    check_plan(due)
    if told["timeout_s"] and (warning := too_short(due, told["timeout_s"])):
        click.echo(warning, err=True)
    if only_plan:
        return 0
    settings = replace(settings, timeout_s=told["timeout_s"] or default_timeout_s(due))
    start = partial(Sweep, plan=plan, settings=settings, store=store, command=told["command"], adapters=adapters)
    if journal:
        click.echo(f"resumes `{told['command']}`: other flags of this call are not looked at", err=True)
        return _execute(partial(start, journal=journal), store, as_json, goes_on)
    store.check_writable()
    journal = Journal.create(store, {**told, "request": asdict(request), "cases": cases_told(plan)}, keys)
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


def _in_file(request: Request) -> Resolved:
    """The model that the file of weights holds, by the name that was given to it, else by the file's."""
    path = Path(request.weights)
    found = open_weights(path)
    name = request.models[0].removesuffix(f"-{found.scheme}") if request.models else model_name(path, found.scheme)
    return Resolved(name, found.scheme, found.arch, definition_hash(found.arch))


def _execute(start: Callable[..., Sweep], store: Store, as_json: bool, goes_on: str) -> int:
    """Execute the sweep and show what it left; the exit code is the most serious of its records'."""
    records: list[Record] = []
    with display() as watcher:

        def observe(record: Record) -> None:
            records.append(record)
            if as_json:
                click.echo(render_json(record))
            _say(watcher, record, store)

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


def _say(watcher: Terminal | Lines, record: Record, store: Store) -> None:
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


def _pairs(options: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in options:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise UsageError(f"{text!r} is not KEY=VALUE", where="--set", remedy="write --set threads=4")
        pairs[key.strip()] = value.strip()
    return pairs


def _patience(flag: str, text: str) -> float:
    """Seconds; 0 is one, too."""
    return 0.0 if text.strip() in ("0", "0s") else _duration(flag, text)


def _duration(flag: str, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError:
        raise UsageError(f"{text!r} is no duration", where=flag, remedy="write 90s, 10m or 1.5h") from None
