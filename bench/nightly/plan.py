"""PLAN.toml: what is executed every night, on which machine, and how much it takes to alarm. Executes nothing.

    [defaults]                           # any key of a case; a case's own replaces it
    model = "smollm2-135m-int8"
    workload = ["pp512", "tg128"]

    [[case]]
    backend = ["onnx", "openvino"]
    label = "epyc"
    set = { threads = 2 }

    [confirm]
    pairs = 8

    [alert]
    least_nights = 5

A case is what one `bench run` would execute, the product of its lists; docs/nightly.md describes every key.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from bench import registry
from bench.errors import BenchError, UsageError, unknown_name
from bench.plan import Request, make_plan, no_share
from bench.spec import Catalog, parse_workload
from bench.toml_file import line_of, read_toml
from bench.units import parse_share

REMEDY = "docs/nightly.md shows a plan"
MOST_BYTES, MOST_CASES, MOST_POINTS = 1 << 20, 256, 1024
"""Of a plan: its size, its cases, and what the lists of one case multiply to."""
GITHUB_MOST_JOBS = 256

Text = Annotated[str, Meta(min_length=1, max_length=200)]
Texts = Text | Annotated[list[Text], Meta(min_length=1, max_length=64)]
Label = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")]
"""It becomes part of a workflow: nothing that a shell or an expression could take for its own."""


class CaseTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[case]]`, or `[defaults]`, as written."""

    backend: Texts | None = None
    model: Texts | None = None
    workload: Texts = field(default_factory=lambda: ["pp512", "tg128"])
    device: Texts | None = None
    provider: Text | None = None
    python: Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"\A[^\x00]*\Z")] | None = None
    options: dict[Text, str | bool | int | float] = field(name="set", default_factory=dict)
    launches: Annotated[int, Meta(ge=1, le=100)] = 5
    repetitions: Annotated[int, Meta(ge=1, le=1000)] = 5
    allow_fallback: Annotated[float, Meta(gt=0, lt=1)] | Text | None = None
    label: Label | None = None


class Confirm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[confirm]`: fewer than 7 pairs cannot reach p < 0.01, whatever they say."""

    pairs: Annotated[int, Meta(ge=7, le=100)] = 8


class Alert(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[alert]`: nights of a series before anything is said of it."""

    least_nights: Annotated[int, Meta(ge=3, le=30)] = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One `[[case]]`: a sweep. `number` counts from 1, `where` is its place in the file."""

    number: int
    where: str
    request: Request
    python: str | None = None
    label: str | None = None

    @property
    def title(self) -> str:
        """For people: `case 2: onnx smollm2-135m-int8 pp512,tg128`."""
        lists = (self.request.backends, self.request.models, self.request.workloads)
        return f"case {self.number}: " + " ".join(",".join(names) for names in lists)


@dataclass(frozen=True, slots=True, kw_only=True)
class NightlyPlan:
    """A plan as it will be executed."""

    path: Path
    entries: tuple[Entry, ...]
    pairs: int = 8
    least_nights: int = 5


def read_plan(path: Path) -> NightlyPlan:
    """The plan in `path`; UsageError with file, line and key for anything that is missing, unknown or out of range.

    Names of backends, models, devices and options are only looked up by `check`: another machine may know them.
    """
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise UsageError(f"larger than {MOST_BYTES} bytes: no plan", where=str(path), remedy=REMEDY)
    text, tables = read_toml(path, remedy=REMEDY)
    file = _File(path, text)
    file.known(tables, ("defaults", "case", "confirm", "alert"), file.place())
    for name in ("defaults", "confirm", "alert"):
        if not isinstance(tables.get(name, {}), dict):
            raise UsageError("is no table", where=file.place(name), remedy=f"write [{name}] above its keys")
    defaults = tables.get("defaults", {})
    file.convert(defaults, CaseTable, "defaults")
    written = tables.get("case", [])
    if not isinstance(written, list) or not 0 < len(written) <= MOST_CASES:
        raise UsageError(f"1 to {MOST_CASES} times [[case]] is what a plan holds", where=str(path), remedy=REMEDY)
    entries = tuple(_entry(file, number, defaults, table) for number, table in enumerate(written, 1))
    seen: dict[Any, Entry] = {}
    for entry in entries:
        first = seen.setdefault(msgspec.json.encode([entry.request, entry.python, entry.label]), entry)
        if first is not entry:
            raise UsageError(f"is case {first.number} again", where=entry.where, remedy="remove one of the two")
    return NightlyPlan(
        path=path,
        entries=entries,
        pairs=file.convert(tables.get("confirm", {}), Confirm, "confirm").pairs,
        least_nights=file.convert(tables.get("alert", {}), Alert, "alert").least_nights,
    )


def chosen(plan: NightlyPlan, labels: Collection[str]) -> tuple[Entry, ...]:
    """The entries with one of `labels`, or all where none is given; UsageError for a label that no entry has."""
    known = {entry.label for entry in plan.entries if entry.label is not None}
    for label in labels:
        if label not in known:
            raise unknown_name("label", label, known, where=str(plan.path))
    return tuple(entry for entry in plan.entries if not labels or entry.label in labels)


def check(entries: Iterable[Entry], catalog: Catalog) -> None:
    """Everything that a night would trip over hours later: UsageError or PrerequisiteError that names the case."""
    for entry in entries:
        try:
            make_plan(entry.request, catalog, {name: registry.load(name) for name in entry.request.backends})
        except BenchError as error:
            where = f"{entry.where}: {error.where}" if error.where else entry.where
            raise type(error)(error.what, where=where, cause=error.cause, remedy=error.remedy) from error


def github_matrix(entries: Sequence[Entry]) -> dict[str, Any]:
    """A matrix for GitHub Actions: one job for each label, so that the cases of one machine follow each other."""
    cases: dict[str, int] = {}
    for entry in entries:
        if entry.label is None:
            raise UsageError("has no label", where=entry.where, remedy="write label, the runner that is to execute it")
        cases[entry.label] = cases.get(entry.label, 0) + 1
    if len(cases) > GITHUB_MOST_JOBS:
        raise UsageError(f"{len(cases)} labels: a matrix of GitHub holds {GITHUB_MOST_JOBS}", remedy="split the plan")
    return {"include": [{"label": label, "cases": count} for label, count in cases.items()]}


_Table = TypeVar("_Table", bound=Struct)


class _File:
    """Where in the file something is wrong."""

    def __init__(self, path: Path, text: str):
        self._path, self._text = path, text

    def place(self, table: str = "", key: str | None = None, number: int | None = None) -> str:
        """`PLAN.toml:12: [[case]] 3 launches`; without the line where it is written in another way."""
        line = _line_of_case(self._text, number, key) if number else line_of(self._text, table, key) if table else None
        where = f"{self._path}:{line}" if line else str(self._path)
        named = f"[[{table}]] {number}" if number else f"[{table}]" if table else ""
        return ": ".join(filter(None, (where, " ".join(filter(None, (named, key))))))

    def known(self, table: dict[str, Any], names: Sequence[str], where: str) -> None:
        for key in table:
            if key not in names:
                error = unknown_name("key", key[:60], names)
                raise UsageError(error.what, where=where, cause=f"known: {', '.join(names)}", remedy=REMEDY)

    def convert(self, table: Any, kind: type[_Table], name: str, number: int | None = None) -> _Table:
        where = self.place(name, None, number)
        if not isinstance(table, dict):
            raise UsageError("is no table", where=where, remedy=REMEDY)
        self.known(table, [each.encode_name for each in msgspec.structs.fields(kind)], where)
        try:
            return msgspec.convert(table, kind)
        except msgspec.ValidationError as error:
            key = re.search(r"`\$\.(\w+)", str(error))
            where = self.place(name, key[1] if key else None, number)
            raise UsageError(str(error), where=where, remedy=REMEDY) from error


def _entry(file: _File, number: int, defaults: dict[str, Any], table: Any) -> Entry:
    merged = {**defaults, **table} if isinstance(table, dict) else table
    case = file.convert(merged, CaseTable, "case", number)
    where = file.place("case", None, number)

    def at(key: str) -> str:
        return file.place("case", key, number) if key in table else file.place("defaults", key)

    for key, value in (("backend", case.backend), ("model", case.model)):
        if value is None:
            raise UsageError(f"names no {key}", where=where, remedy=f"write {key} there or in [defaults]")
    lists = [_listed(value) for value in (case.backend, case.model, case.workload, case.device)]
    backends, models, workloads, devices = lists
    if prod(len(names) or 1 for names in lists) > MOST_POINTS:
        raise UsageError(f"its lists multiply to more than {MOST_POINTS} cases", where=where, remedy="split it")
    for workload in workloads:
        try:
            parse_workload(workload)
        except UsageError as error:
            raise UsageError(error.what, where=at("workload"), cause=error.cause, remedy=error.remedy) from error
    return Entry(
        number=number,
        where=where,
        request=Request(
            backends=backends,
            models=models,
            workloads=workloads,
            devices=devices or (None,),
            provider=case.provider,
            launches=case.launches,
            repetitions=case.repetitions,
            options={name: _as_typed(value) for name, value in case.options.items()},
            allow_fallback=_share(case.allow_fallback, at("allow_fallback")),
        ),
        python=case.python,
        label=case.label,
    )


def _share(value: float | str | None, where: str) -> float | None:
    """As `--allow-fallback` would have it."""
    try:
        return parse_share(value) if isinstance(value, str) else value
    except ValueError:
        raise no_share(str(value), where) from None


def _listed(value: str | list[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _as_typed(value: str | bool | int | float) -> str:
    """As `--set` would have it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _line_of_case(text: str, number: int, key: str | None) -> int | None:
    """Line of `key` in the n-th `[[case]]`, or of its header where the key is not there; None where there is none."""
    lines = text.splitlines()
    headers = [at for at, line in enumerate(lines, 1) if re.match(r"\s*\[\[\s*[\"']?case[\"']?\s*\]\]", line)]
    if number > len(headers):
        return None
    start = headers[number - 1]
    for at, line in enumerate(lines[start:], start + 1):
        if line.lstrip().startswith("["):
            break
        if key and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", line):
            return at
    return start
