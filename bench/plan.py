"""From what is asked to what will be executed: load groups of cases. Pure."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bench.api import Backend
from bench.errors import UsageError
from bench.spec import Catalog, parse_workload
from bench.types import ANY, SYNTHETIC, Arch, Case, Fidelity, LoadGroup, Option, Support, Workload, declared

SMALLEST_KV_CAPACITY = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for: the product of its lists. `options` are raw `--set` strings, `models` are MODEL-SCHEME.

    `allow_fallback`, the share of the matrix products that may execute elsewhere than asked, is of no case: it decides
    what is believed, not what is computed.
    """

    backends: tuple[str, ...]
    models: tuple[str, ...]
    workloads: tuple[str, ...] = ("pp512", "tg128")
    devices: tuple[str | None, ...] = (None,)
    provider: str | None = None
    fidelity: Fidelity = "native"
    weights: str = SYNTHETIC
    launches: int = 1
    repetitions: int = 5
    options: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    chunk: int = 512
    allow_fallback: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to execute, in order, and what was refused beforehand with the reason."""

    groups: tuple[LoadGroup, ...]
    refused: tuple[tuple[Case, Support], ...]


def make_plan(request: Request, catalog: Catalog, adapters: Mapping[str, Backend]) -> Plan:
    """Load groups in order of models, backends and devices; the workloads of each in seeded random order.

    `adapters` holds the adapter of every name in `request.backends`. UsageError for anything unknown or out of range.
    """
    _check(request)
    if (request.weights == SYNTHETIC) != (catalog.file is None):
        raise UsageError(f"unknown source of weights {request.weights!r}", where="--weights", remedy="use synthetic")
    groups: list[LoadGroup] = []
    refused: list[tuple[Case, Support]] = []
    workloads = _unique(parse_workload(text, request.chunk) for text in request.workloads)
    for model in _unique(request.models):
        for name in _unique(request.backends):
            adapter = adapters[name]
            asked = replace(request, provider=provider_named(adapter, request.provider))
            options = parse_options(name, adapter.options, request.options, asked.provider)
            for device in _unique(request.devices):
                cases = [_case(asked, catalog, model, adapter, device, options, workload) for workload in workloads]
                verdicts = [(case, adapter.support(case)) for case in cases]
                refused += [(case, support) for case, support in verdicts if not support.ok]
                groups += group_cases(case for case, support in verdicts if support.ok)
    return Plan(tuple(shuffled(group, request.seed) for group in groups), tuple(refused))


def group_cases(cases: Iterable[Case]) -> list[LoadGroup]:
    """Cases that share one loaded model together: equal but for the lengths of their workloads."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        shape = replace(case.workload, name="", prompt_tokens=0, new_tokens=0, depth=0, first_id_from_prompt=False)
        groups.setdefault(case_key(replace(case, workload=shape)), []).append(case)
    return [LoadGroup(cases=tuple(members)) for members in groups.values()]


def shuffled(group: LoadGroup, seed: int, launch: int = 0) -> LoadGroup:
    """The group with its cases in the random order of one launch; equal arguments give an equal order."""
    cases = sorted(group.cases, key=case_key)
    random.Random(f"{seed} {launch} {case_key(cases[0])}").shuffle(cases)
    return LoadGroup(cases=tuple(cases))


def case_key(case: Case) -> str:
    """32 hex digits that name a case in the journal: equal cases have equal keys in every process."""
    return hashlib.sha256(json.dumps(asdict(case), sort_keys=True).encode()).hexdigest()[:32]


def no_share(text: str, where: str = "--allow-fallback") -> UsageError:
    """The error for what is no share of the matrix products that may execute elsewhere."""
    return UsageError(
        f"{text!r} is no share between 0 and 1", where=where, remedy="write 5% or 0.05, or leave it out to allow none"
    )


def kv_capacity(workload: Workload, arch: Arch, model: str) -> int:
    """Positions to reserve: a power of two, 1024 or more, never beyond the model's context.

    UsageError where the workload itself needs more positions than the context has.
    """
    if workload.positions > arch.context:
        raise UsageError(
            f"{model} has a context of {arch.context} tokens, workload {workload.name} needs {workload.positions}",
            remedy="choose a shorter workload or a smaller depth",
        )
    power = 1 << max(0, workload.positions - 1).bit_length()
    return min(max(power, SMALLEST_KV_CAPACITY), arch.context)


def provider_named(adapter: Backend, asked: str | None) -> str | None:
    """The full name of the execution provider that is `asked` for, or of the adapter's own where none is.

    A name that the adapter does not know is taken as it is: its runtime may. UsageError where there are no providers.
    """
    if asked and not adapter.provider:
        raise UsageError(
            f"backend {adapter.name} has no execution providers", where="--provider", remedy="leave it out"
        )
    return adapter.providers.get(asked.lower(), asked) if asked else adapter.provider


def parse_options(
    backend: str, known: Mapping[str, Option], raw: Mapping[str, str], provider: str | None = None
) -> dict[str, Any]:
    """Values of all options of a backend: those given, as their kind, and the defaults of the others.

    Defaults are those for the execution `provider`, by its full name.
    """
    found = {key: option.default_for(provider) for key, option in known.items() if not key.endswith(ANY)}
    for key, text in raw.items():
        option = declared(known, key)
        if option is None:
            near = get_close_matches(key, known)
            raise UsageError(
                f"unknown option {key!r}",
                where=f"backend {backend}",
                cause=f"nearest: {', '.join(near)}" if near else None,
                remedy=_listing(known),
            )
        found[key] = _parse_option(f"backend {backend}, option {key}", option, text)
    return found


def default_options(adapter: Backend) -> dict[str, Any]:
    """All options of a backend where none is given, and no execution provider either."""
    return parse_options(adapter.name, adapter.options, {}, adapter.provider)


def _check(request: Request) -> None:
    for flag, value in (("--launches", request.launches), ("--repetitions", request.repetitions)):
        if value < 1:
            raise UsageError(f"{value} is too few", where=flag, remedy="give at least 1")
    if request.seed < 0:
        raise UsageError(f"{request.seed} is negative", where="--seed", remedy="give 0 or more")
    if request.allow_fallback is not None and not 0 < request.allow_fallback < 1:
        raise no_share(str(request.allow_fallback))
    for flag, given in (
        ("--backend", request.backends),
        ("--model", request.models),
        ("--workload", request.workloads),
        ("--device", request.devices),
    ):
        if not given:
            raise UsageError("is empty", where=flag, remedy=f"`bench list {flag[2:]}s` shows what there is")


def _case(
    request: Request,
    catalog: Catalog,
    name: str,
    adapter: Backend,
    device: str | None,
    options: dict[str, Any],
    workload: Workload,
) -> Case:
    model, scheme, arch, _ = catalog.resolve(name)
    return Case(
        model=model,
        scheme=scheme,
        weights=request.weights,
        arch=arch,
        backend=adapter.name,
        device=device,
        provider=request.provider,
        fidelity=request.fidelity,
        workload=workload,
        kv_capacity=kv_capacity(workload, arch, model),
        options=options,
    )


def _parse_option(where: str, option: Option, text: str) -> Any:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if option.choices and text not in option.choices:
        raise UsageError(f"{text!r} is no choice", where=where, cause=f"choices: {', '.join(option.choices)}")
    try:
        value: Any = words[text.lower()] if option.kind is bool else option.kind(text)
    except (ValueError, KeyError):
        value = None
    if option.path:
        value = str(Path(text).expanduser().absolute()) if text else None
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}.get(option.kind, "text")
        raise UsageError(f"{text!r} is not {kind}", where=where, cause=option.help)
    if option.minimum is not None and value < option.minimum:
        raise UsageError(
            f"{value} is too few", where=where, cause=option.help, remedy=f"give at least {option.minimum}"
        )
    return value


def _listing(known: Mapping[str, Option]) -> str:
    if not known:
        return "it takes no options"
    return "it takes " + ", ".join(f"{key} ({option.help})" for key, option in sorted(known.items()))


def _unique(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))
