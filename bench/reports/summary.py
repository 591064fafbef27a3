"""Summaries: computed from raw samples whenever a record is read, never stored.

A launch's value is the median over its samples (a median does not move with one interrupted repetition); `mean` is
what llama-bench prints. Over several launches both are the mean of the launches', and `low` and `high` are the 95 % t
interval about the value: the launch is the unit, for samples of one launch share its memory layout. Where an import
has no samples, the mean that its source states is all there is, and the value of the workload's own rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median, stdev
from typing import Any

import msgspec
import numpy as np

from bench.reports.interval import t_interval
from bench.reports.metrics import METRICS, PERCENTILE_FLOORS, Metric, gaps_s, headline
from bench.results.record import Record
from bench.results.schema import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One figure. `within_cv` is the coefficient of variation inside a launch (root mean square over launches).

    `low` and `high` only over two launches or more. All None where it was not measured. `n_samples` 0 beside a value:
    it is stated by the source of an import, whose samples are not known.
    """

    value: float | None = None
    mean: float | None = None
    n_samples: int = 0
    within_cv: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All figures by key, each present even where nothing was measured."""

    n_launches: int
    values: dict[str, Value]

    def __getitem__(self, key: str) -> Value:
        return self.values[key]

    def plain(self) -> dict[str, Any]:
        """For JSON: `n_launches` beside the figures."""
        return {"n_launches": self.n_launches, **{key: asdict(value) for key, value in self.values.items()}}


def summarize(records: Record | Sequence[Record]) -> Summary:
    """The figures of one record, or of several launches of one series and precision (ValueError otherwise)."""
    launches = [records] if isinstance(records, Record) else list(records)
    if len({(record.series_key, record.precision_key) for record in launches}) != 1:
        raise ValueError("a summary needs records, all of one series at one precision")
    by_launch: dict[str, list[Record]] = {}
    for record in launches:
        by_launch.setdefault(record.launch_id, []).append(record)
    values = {
        metric.key: _over_launches([_of_launch(metric, group) for group in by_launch.values()]) for metric in METRICS
    }
    gaps = [
        [gap for record in group for s in _samples(record) for gap in gaps_s(record.identity.workload, s)]
        for group in by_launch.values()
    ]
    for percent, floor in PERCENTILE_FLOORS.items():
        values[f"itl_p{percent}_s"] = _percentile(gaps, percent, floor)
    return Summary(n_launches=len(by_launch), values=values)


def render_json(record: Record) -> str:
    """The record as it is stored, on one line, with its `summary`: what `--json` prints."""
    return msgspec.json.encode({**record.raw(), "summary": summarize(record).plain()}).decode()


def _samples(record: Record) -> list[Sample]:
    return [sample for sample in record.samples if sample.kind in ("step", "phase")]


@dataclass(frozen=True, slots=True)
class _Launch:
    """One figure of one launch; `spread` is its coefficient of variation, None where it is not known."""

    value: float
    mean: float
    spread: float | None
    n_samples: int


def _of_launch(metric: Metric, records: Sequence[Record]) -> _Launch | None:
    """From all samples of the launch's records, else from what their sources state."""
    values = [v for record in records for s in _samples(record) if (v := metric.of(record, s)) is not None]
    if values:
        spread = stdev(values) / fmean(values) if len(values) > 1 and fmean(values) else None
        return _Launch(median(values), fmean(values), spread, len(values))
    stated = [
        (source.mean_tokens_per_s, source.sd_tokens_per_s)
        for record in records
        if (source := record.source) and not record.samples and metric.key == headline(record.identity.workload)
    ]
    means = [mean for mean, _ in stated if mean]
    if not means:
        return None
    return _Launch(
        fmean(means), fmean(means), _root_mean_square([sd / m for m, sd in stated if m and sd is not None]), 0
    )


def _over_launches(found: Sequence[_Launch | None]) -> Value:
    measured = [launch for launch in found if launch is not None]
    if not measured:
        return Value()
    return _value(
        [launch.value for launch in measured],
        sum(launch.n_samples for launch in measured),
        within_cv=_root_mean_square([launch.spread for launch in measured if launch.spread is not None]),
        mean=fmean(launch.mean for launch in measured),
    )


def _root_mean_square(spreads: Sequence[float]) -> float | None:
    return math.sqrt(fmean(spread * spread for spread in spreads)) if spreads else None


def _percentile(launches: list[list[float]], percent: int, floor: int) -> Value:
    """Of each launch's gaps, by linear interpolation; only launches with enough of them count."""
    enough = [gaps for gaps in launches if len(gaps) >= floor]
    if not enough:
        return Value(n_samples=sum(map(len, launches)))
    return _value([float(np.percentile(gaps, percent)) for gaps in enough], sum(map(len, enough)))


def _value(
    of_launches: list[float], n_samples: int, *, within_cv: float | None = None, mean: float | None = None
) -> Value:
    low, high = t_interval(of_launches) or (None, None)
    return Value(value=fmean(of_launches), mean=mean, n_samples=n_samples, within_cv=within_cv, low=low, high=high)
