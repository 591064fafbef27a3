"""Summaries: computed from raw samples whenever a record is read, never stored.

A launch's value is the median over its samples (llama-bench prints the mean; a median does not move with one
interrupted repetition). Over several launches the value is the mean of the launches' values, and `low` and `high` are
the 95 % t interval about that mean: the launch is the unit, for samples of one launch share its memory layout.
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
from bench.reports.metrics import METRICS, PERCENTILE_FLOORS, gaps_s
from bench.results.record import Record
from bench.results.schema import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One figure. `within_cv` is the coefficient of variation inside a launch (root mean square over launches).

    `low` and `high` only over two launches or more. All None where it was not measured.
    """

    value: float | None = None
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
    values = {
        metric.key: _over_launches(
            [[v for s in _samples(record) if (v := metric.of(record, s)) is not None] for record in launches]
        )
        for metric in METRICS
    }
    gaps = [[gap for s in _samples(record) for gap in gaps_s(record.identity.workload, s)] for record in launches]
    for percent, floor in PERCENTILE_FLOORS.items():
        values[f"itl_p{percent}_s"] = _percentile(gaps, percent, floor)
    return Summary(n_launches=len({record.launch_id for record in launches}), values=values)


def render_json(record: Record) -> str:
    """The record as it is stored, on one line, with its `summary`: what `--json` prints."""
    return msgspec.json.encode({**record.raw(), "summary": summarize(record).plain()}).decode()


def _samples(record: Record) -> list[Sample]:
    return [sample for sample in record.samples if sample.kind == "step"]


def _over_launches(launches: list[list[float]]) -> Value:
    measured = [values for values in launches if values]
    if not measured:
        return Value()
    spreads = [stdev(values) / fmean(values) for values in measured if len(values) > 1 and fmean(values)]
    within = math.sqrt(fmean(spread * spread for spread in spreads)) if spreads else None
    return _value([median(values) for values in measured], sum(map(len, measured)), within)


def _percentile(launches: list[list[float]], percent: int, floor: int) -> Value:
    """Of each launch's gaps, by linear interpolation; only launches with enough of them count."""
    enough = [gaps for gaps in launches if len(gaps) >= floor]
    if not enough:
        return Value(n_samples=sum(map(len, launches)))
    return _value([float(np.percentile(gaps, percent)) for gaps in enough], sum(map(len, enough)), None)


def _value(of_launches: list[float], n_samples: int, within_cv: float | None) -> Value:
    low, high = t_interval(of_launches) or (None, None)
    return Value(value=fmean(of_launches), n_samples=n_samples, within_cv=within_cv, low=low, high=high)
