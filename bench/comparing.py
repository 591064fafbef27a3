"""Two sets of records to rows of verdicts, with what differs beside each. Pure; the launch is the unit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from statistics import fmean
from typing import Any

import msgspec

from bench.errors import unknown_name
from bench.pairing import BADGED, ELSEWHERE, NOTHING, SAME, Alone, Fields, Pool, flat, paired, pools, refused
from bench.reports.metered_columns import METERED
from bench.reports.metrics import METRICS, PERCENTILE_FLOORS, headline
from bench.reports.row import FEW_LAUNCHES, Row
from bench.reports.summary import summarize
from bench.results.keys import PRECISION, canonical_json
from bench.results.record import Record
from bench.results.schema import Facts
from bench.results.selecting import as_text
from bench.stats.comparison import Comparison, compare

MOST_VALUES = 3
"""Of one covariate within a side; more are counted."""

_METERED = {column.key: column for column in METERED if column.numeric}
FIGURES = (*(metric.key for metric in METRICS), *(f"itl_p{percent}_s" for percent in PERCENTILE_FLOORS), *_METERED)
"""What can be compared instead of the rate that a workload is about."""

Changes = Mapping[str, tuple[str | None, str | None]]
"""By name: what A has, what B has; None: not known, or not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One row: how B stands to A in one figure. `a` and `b` are the values of their launches, in the figure's unit.

    `differs` of the identity, `precision` of what was effective, `covariates` of what may explain a change. `elsewhere`
    is what A and what B executed elsewhere than asked; None: nothing. `comparison` is None where `refused` says why.
    """

    model: str
    workload: str
    figure: str
    a: tuple[float, ...]
    b: tuple[float, ...]
    comparison: Comparison | None
    refused: str | None
    differs: Changes
    precision: Changes
    precision_differs: bool
    covariates: Changes
    elsewhere: tuple[str | None, str | None]
    unproven: bool
    badges: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """All rows by model and workload, and what stands on one side alone."""

    rows: tuple[Compared, ...]
    only_a: tuple[Alone, ...]
    only_b: tuple[Alone, ...]


def compared(
    a: Iterable[Record],
    b: Iterable[Record],
    *,
    figure: str | None = None,
    margin: float = 0.02,
    level: float = 0.95,
    in_pairs: bool = False,
) -> Sides:
    """How B stands to A, in the rate that each workload is about or in `figure` (UsageError where there is no such).

    `in_pairs`: launches of one `info.launch_index` were executed beside each other and are compared so; what has no
    index has no partner. ValueError where a series has one twice. Only records that count belong here
    (`selecting.left_out`).
    """
    if figure is not None and figure not in FIGURES:
        raise unknown_name("figure", figure, FIGURES, where="--figure")

    def of(pool: Pool) -> str:
        return figure or headline(pool.first.identity.workload)

    values = cache(lambda pool: _values(pool, of(pool), in_pairs))  # a pool may stand in many rows
    judge = partial(compare, paired=in_pairs, margin=margin, level=level)
    found = paired(pools(a), pools(b))
    rows = [_row(x, y, of(x), *_launches(values(x), values(y), in_pairs), judge) for x, y in found.found]
    rows.sort(key=lambda row: (row.model, row.workload))
    return Sides(rows=tuple(rows), only_a=found.only_a, only_b=found.only_b)


def higher_is_better(figure: str) -> bool:
    """Rates and shares are; times, energy, power and memory are not."""
    return figure.endswith("_per_s") or not figure.endswith(("_s", "_per_token", "_w", "_bytes"))


def centre(values: Sequence[float]) -> float | None:
    """The geometric mean of launches: B's over A's is the ratio."""
    return math.exp(fmean(map(math.log, values))) if values else None


def _launches(
    a: Mapping[Any, float], b: Mapping[Any, float], in_pairs: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The values of both sides; in pairs those that have a partner, in the order in which they were executed."""
    if not in_pairs:
        return tuple(a.values()), tuple(b.values())
    both = sorted(a.keys() & b.keys())
    return tuple(a[index] for index in both), tuple(b[index] for index in both)


def _row(
    a: Pool, b: Pool, figure: str, of_a: tuple[float, ...], of_b: tuple[float, ...], judge: Callable[..., Comparison]
) -> Compared:
    why = _refused(a, b, figure, of_a, of_b)
    comparison = None if why else judge(of_a, of_b, higher_is_better=higher_is_better(figure))
    other_precision = _other_precision(a, b)
    return Compared(
        model=a.model,
        workload=a.first.identity.workload.name,
        figure=figure,
        a=of_a,
        b=of_b,
        comparison=comparison,
        refused=why,
        differs=_differs(a, b),
        precision=_changes(_precision(a.first.facts), _precision(b.first.facts)) if other_precision else {},
        precision_differs=other_precision,
        covariates=_covariates(a, b),
        elsewhere=(_elsewhere(a), _elsewhere(b)),
        unproven=not (a.first.proven and b.first.proven),
        badges=tuple(_badges(a, b, min(len(of_a), len(of_b)))),
    )


def _values(pool: Pool, figure: str, by_index: bool) -> dict[Any, float]:
    """The figure of each launch; one without it, or with what is no positive number, is left out."""
    launches: dict[Any, list[Record]] = {}
    for record in pool.records:
        if (key := record.info.launch_index if by_index else record.launch_id) is not None:
            launches.setdefault(key, []).append(record)
    values = {}
    for key, records in launches.items():
        if by_index and len(records) > 1:
            raise ValueError(f"{pool.label} has {len(records)} records of launch index {key}: there are no pairs")
        row = Row(records=tuple(records), summary=summarize(records))
        value = _METERED[figure].of(row) if figure in _METERED else row.figure(figure).value
        if isinstance(value, int | float) and 0 < value < math.inf:
            values[key] = float(value)
    return values


def _refused(a: Pool, b: Pool, figure: str, of_a: Sequence[float], of_b: Sequence[float]) -> str | None:
    """Why there is no verdict; None where there may be one."""
    others = [
        f"other {name}: {x or 'unknown'} and {y or 'unknown'}"
        for name, (x, y) in _changes(a.fields, b.fields).items()
        if refused(name)
    ]
    if others:
        return "; ".join(others)
    if again := {record.launch_id for record in a.records} & {record.launch_id for record in b.records}:
        return f"{len(again)} launch{'es stand' if len(again) > 1 else ' stands'} on both sides"
    lacking = [side for side, values in (("A", of_a), ("B", of_b)) if not values]
    return f"no {figure} in {' and '.join(lacking)}" if lacking else None


def _differs(a: Pool, b: Pool) -> Changes:
    """Of the identity. Options that only one of two backends has are its own affair; an unknown card is no other."""
    other_backend = a.fields["backend"] != b.fields["backend"]

    def tells(name: str, x: str | None, y: str | None) -> bool:
        if name in (*SAME, *BADGED) or refused(name) or (name == "device id" and None in (x, y)):
            return False
        return not (other_backend and name.startswith("options.") and (name not in a.fields or name not in b.fields))

    return {name: (x, y) for name, (x, y) in _changes(a.fields, b.fields).items() if tells(name, x, y)}


def _precision(facts: Facts | None) -> Fields:
    """What `precision_key` is made of."""
    if facts is None:
        return {}
    phases = {"prefill": facts.prefill, "decode": facts.decode, "path": facts.path}
    told = {f"{phase}.{name}": getattr(of, name) for phase, of in phases.items() if of for name in PRECISION}
    return {"weights": facts.weights, "kv_cache": facts.kv_cache, "isa": facts.isa, **told}


def _other_precision(a: Pool, b: Pool) -> bool:
    """The key is of the precision and of what was executed elsewhere, which is refused by itself."""
    if a.first.precision_key == b.first.precision_key:
        return False
    return _elsewhere(a) == _elsewhere(b) or _precision(a.first.facts) != _precision(b.first.facts)


def _elsewhere(pool: Pool) -> str | None:
    told = pool.fields[ELSEWHERE]
    return told if told != NOTHING else None


def _covariates(a: Pool, b: Pool) -> Changes:
    """What differs between the sides, or within one of them: then all its values stand there."""
    of_a, of_b = ([_flat_covariates(record) for record in pool.records] for pool in (a, b))
    changed: dict[str, tuple[str | None, str | None]] = {}
    for name in dict.fromkeys(name for each in (*of_a, *of_b) for name in each):
        x, y = {each.get(name) for each in of_a}, {each.get(name) for each in of_b}
        if x != y or len(x) > 1:
            changed[name] = (_all(x), _all(y))
    if a.fields["backend"] == b.fields["backend"]:
        return changed
    # two runtimes share no version: what each of them is stands in one place
    runtimes = {name: changed.pop(name) for name in list(changed) if name.startswith("runtime.")}
    texts = [
        ", ".join(f"{name.removeprefix('runtime.')} {of[side]}" for name, of in runtimes.items() if of[side])
        for side in (0, 1)
    ]
    return {"runtime": (texts[0] or None, texts[1] or None), **changed} if runtimes else changed


def _flat_covariates(record: Record) -> dict[str, str | None]:
    told: dict[str, str | None] = {}
    for name, value in msgspec.to_builtins(record.covariates).items():
        told |= flat(name, value) if isinstance(value, dict) else {name: None if value is None else as_text(value)}
    return told


def _all(values: set[str | None]) -> str | None:
    if len(values) > MOST_VALUES:
        return f"{len(values)} different ones"
    return " | ".join(sorted(value or "unknown" for value in values)) if values != {None} else None


def _badges(a: Pool, b: Pool, launches: int) -> Iterator[str]:
    """What a reader of the verdict must know, in a word or two each."""
    records = (*a.records, *b.records)
    if not (a.first.proven and b.first.proven):
        yield "unproven"
    if any(record.origin == "imported" for record in records):
        yield "imported"
    if _other_precision(a, b):
        yield "other precision"
    if _elsewhere(a) or _elsewhere(b):
        yield "fallback"
    if a.fields["machine"] != b.fields["machine"]:
        yield "other machine"
    if any(len({canonical_json(record.covariates) for record in pool.records}) > 1 for pool in (a, b)):
        yield "mixed"
    if any(record.warnings for record in records):
        yield "warnings"
    if launches < FEW_LAUNCHES:
        yield "few launches"


def _changes(a: Fields, b: Fields) -> Changes:
    return {name: (a.get(name), b.get(name)) for name in {**a, **b} if a.get(name) != b.get(name)}
