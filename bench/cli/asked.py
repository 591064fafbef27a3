"""What all commands that measure share: options, what a journal is told of them, and the plan made from that."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any

import click
import msgspec

from bench import registry
from bench.api import Backend
from bench.artifacts.imported import model_name, open_weights
from bench.cli.display import Lines, Terminal
from bench.cli.planned import Due, default_timeout_s, due_of
from bench.environments.host_file import locate_host_file, read_host_file, read_meter
from bench.environments.interpreter import Interpreter
from bench.errors import UsageError
from bench.plan import Plan, Request, make_plan, no_share
from bench.preparing import Settings
from bench.results.journal import Journal
from bench.results.store import Store
from bench.runner import Observe, Sweep, planned_keys
from bench.situation import Part
from bench.spec import Resolved, definition_hash, load_catalog
from bench.types import SYNTHETIC
from bench.units import parse_duration, parse_share
from bench.watching import Sensors

WAITING = ("idle_s", "max_wait_s", "cool_to_c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be executed, how, and by which adapters; `told` is what the journal keeps of it."""

    told: Mapping[str, Any]
    request: Request
    plan: Plan
    settings: Settings
    adapters: Mapping[str, Backend]

    @property
    def keys(self) -> list[str]:
        """All that is planned, as a journal names it."""
        return planned_keys(self.plan, self.settings)

    def due(self, missing: Collection[str]) -> tuple[Due, ...]:
        """The load groups of which `missing` keys are to be executed, with what they need."""
        return due_of(self.plan, self.adapters, self.settings, missing)

    def sweep(
        self,
        due: Sequence[Due],
        store: Store,
        journal: Journal,
        watcher: Terminal | Lines,
        observe: Observe,
        *,
        sensors: Sensors | None = None,
        part: Part | None = None,
    ) -> Sweep:
        """The sweep that executes what `due` told, within the time limit that was given or that this asks for."""
        return Sweep(
            plan=self.plan,
            settings=replace(self.settings, timeout_s=self.told["timeout_s"] or default_timeout_s(due)),
            store=store,
            journal=journal,
            watcher=watcher,
            observe=observe,
            command=self.told["command"],
            adapters=self.adapters,
            sensors=sensors,
            part=part,
        )


MEASURING = (
    click.option("--timeout", metavar="1h", help="Most time of one launch; else 1h, or 4 times what is expected."),
    click.option("--idle", metavar="30s", default="30s", show_default=True, help="Read power before anything loads."),
    click.option("--cool-to", metavar="C", type=float, help="Begin when no device is warmer, in °C."),
    click.option(
        "--max-wait", metavar="10m", default="10m", show_default=True, help="For another bench, or to cool down."
    ),
    click.option("--host", type=click.Path(path_type=Path), help="How this machine executes workers ($BENCH_HOST)."),
    click.option("--models", "model_files", type=click.Path(path_type=Path), multiple=True, help="More models.toml."),
    click.option("--results", metavar="DIR", help="The store (else $BENCH_RESULTS)."),
)


FALLBACK = click.option(
    "--allow-fallback", metavar="SHARE", help="Of the matrix products, as in 5%, to execute elsewhere than asked."
)


def measuring(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of all commands that measure; all but `--results` come as `waiting`, for `told_of(**waiting)`."""
    names = tuple(signature(told_of).parameters)

    @wraps(command)
    def grouped(**given: Any) -> Any:
        return command(waiting={name: given.pop(name) for name in names}, **given)

    for option in reversed(MEASURING):
        grouped = option(grouped)
    return grouped


def told_of(
    *,
    timeout: str | None,
    idle: str,
    max_wait: str,
    cool_to: float | None,
    host: Path | None,
    model_files: Sequence[Path],
) -> dict[str, Any]:
    """What a journal keeps of these options."""
    return {
        "timeout_s": duration("--timeout", timeout) if timeout else None,
        "idle_s": duration("--idle", idle, least_s=0),
        "max_wait_s": duration("--max-wait", max_wait, least_s=0),
        "cool_to_c": cool_to,
        "model_files": [str(path.absolute()) for path in model_files],
        "host": str(named) if (named := locate_host_file(host)) else None,
    }


def understood(told: Mapping[str, Any]) -> Asked:
    """The plan of what a journal was told, by today's code and catalog; UsageError where that does not fit."""
    request = msgspec.convert(told["request"], Request)
    catalog = load_catalog([Path(path) for path in told["model_files"]])
    if request.weights != SYNTHETIC:
        found = _in_file(request)
        catalog, request = replace(catalog, file=found), replace(request, models=(found.model,))
    asked_for = {name: registry.load(name) for name in request.backends}
    host_file = Path(told["host"]) if told.get("host") else None
    chosen = told.get("interpreter")  # of an earlier record, whatever the host file says today
    settings = Settings(
        launches=request.launches,
        repetitions=request.repetitions,
        budget_s=told["budget_s"],
        python=told["python"],
        host={name: _again(chosen) for name in request.backends} if chosen else read_host_file(host_file),
        meter=read_meter(host_file),
        **{key: told[key] for key in WAITING if key in told},  # journals of before have none
        seed=request.seed,
        allow_fallback=request.allow_fallback,
        targets={adapter.name: registry.target(name) for name, adapter in asked_for.items()},
    )
    return Asked(
        told=told,
        request=request,
        plan=make_plan(request, catalog, asked_for),
        settings=settings,
        adapters={adapter.name: adapter for adapter in asked_for.values()},
    )


def _again(told: Mapping[str, Any]) -> Interpreter:
    """The interpreter that a record tells of."""
    return Interpreter(python=told["python"], prefix=tuple(told["prefix"]), origin="host file")


def options_told(texts: Sequence[str], where: str = "--set", example: str = "--set threads=4") -> dict[str, str]:
    """KEY=VALUE pairs as a mapping; UsageError for anything else."""
    pairs = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise UsageError(f"{text!r} is not KEY=VALUE", where=where, remedy=f"write {example}")
        pairs[key.strip()] = value.strip()
    return pairs


def duration(flag: str, text: str, *, least_s: float | None = None) -> float:
    """Seconds of `90s`, `10m`, `1.5h`; 0 only where `least_s` is 0."""
    if least_s == 0 and text.strip() in ("0", "0s"):
        return 0.0
    try:
        return parse_duration(text)
    except ValueError:
        raise UsageError(f"{text!r} is no duration", where=flag, remedy="write 90s, 10m or 1.5h") from None


def share(text: str | None) -> float | None:
    """`--allow-fallback` as a ratio; None where it was not given."""
    try:
        return parse_share(text) if text is not None else None
    except ValueError:
        raise no_share(text or "") from None


def _in_file(request: Request) -> Resolved:
    """The model that the file of weights holds, by the name that was given to it, else by the file's."""
    path = Path(request.weights)
    found = open_weights(path)
    name = request.models[0].removesuffix(f"-{found.scheme}") if request.models else model_name(path, found.scheme)
    return Resolved(name, found.scheme, found.arch, definition_hash(found.arch))
