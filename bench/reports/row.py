"""A row of a table and what can be read from it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date as Day
from typing import Any

from bench.reports.grouping import precision
from bench.reports.metrics import headline
from bench.reports.summary import Summary, Value
from bench.results.record import Record
from bench.units import NOT_MEASURED, render_number

FEW_LAUNCHES = 5
"""What it takes to publish: the interval of fewer is wide, and of one there is none."""
STALE_DAYS = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Launches of one series that stand together; `options` are those that tell the table's rows apart.

    `group` is the heading of the rows that it may be ranked among, `relative_ratio` its rate / that of the fastest
    proven one of them; None of a row that is not proven.
    """

    records: tuple[Record, ...]
    summary: Summary
    options: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    relative_ratio: float | None = None
    age_days: int | None = None

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def model(self) -> str:
        return f"{self.first.identity.model}-{self.first.identity.scheme}"

    @property
    def headline(self) -> Value:
        """The rate that the row's workload is about."""
        return self.figure(headline(self.first.identity.workload))

    def figure(self, key: str) -> Value:
        """A figure of the summary; empty where it must not be believed, so that no table can rank it."""
        return Value() if self.first.status in ("invalid", "failed") else self.summary[key]


def status(row: Row) -> str:
    """The record's status; `imported` where somebody else claims to have measured it."""
    claimed = row.first.origin == "imported" and row.first.status in ("ok", "unproven")
    return "imported" if claimed else row.first.status


def flagged_status(row: Row) -> str:
    """The status, with ! where there are warnings."""
    return status(row) + ("!" if warnings(row) else "")


def badges(row: Row) -> list[str]:
    """What lessens a rate, beside its status."""
    few = row.headline.value is not None and row.summary.n_launches < FEW_LAUNCHES
    stale = row.age_days is not None and row.age_days > STALE_DAYS
    return ["few launches"] * few + ["stale"] * stale


def gate_ratio(row: Row) -> float | None:
    """Measured error over predicted error: 1 is what the declared precision must cause; the worst of the launches."""
    ratios = [r.gate.error / r.gate.predicted for r in row.records if r.gate and r.gate.error and r.gate.predicted]
    return max(ratios, key=lambda ratio: abs(ratio - 1)) if ratios else None


def gate(row: Row) -> str:
    """`gate_ratio`, or `exact` where float32 is declared and holds: that bound is absolute."""
    ratio = gate_ratio(row)
    if ratio is not None:
        return f"{ratio:.2f}"
    exact = all(r.gate and r.gate.verdict == "passed" and r.gate.class_ == "f32" for r in row.records)
    return "exact" if exact else NOT_MEASURED


def whose(row: Row) -> str | None:
    """`published` where what tells the machine was removed, else `own`; None where it was imported."""
    return "published" if row.first.info.redacted else "own" if row.first.origin == "measured" else None


def warnings(row: Row) -> str | None:
    """Of all launches, each once."""
    return "; ".join(dict.fromkeys(text for record in row.records for text in record.warnings)) or None


def reason(row: Row) -> str | None:
    """Why the row is not `ok`, and the next command."""
    why = row.first.reason
    if why is None:
        return None
    return f"{why.what}; {why.remedy}" if why.remedy else why.what


def devices(row: Row) -> str | None:
    return ", ".join(device.name for device in row.first.identity.devices) or None


def half_width_ratio(row: Row) -> float | None:
    """Half of the 95 % interval of the headline, as a share of it."""
    rate = row.headline
    return (rate.high - rate.low) / 2 / rate.value if rate.value and rate.low is not None and rate.high else None


def interval(row: Row) -> str:
    """The 95 % interval of the headline and the launches it rests on; `n = 1` where one launch cannot have any."""
    rate, launches = row.headline, f"n = {row.summary.n_launches}"
    if rate.value is None:
        return NOT_MEASURED
    if rate.low is None:
        return launches
    return f"{render_number(rate.low)} to {render_number(rate.high)}, {launches}"


def age_days(records: Iterable[Record], today: Day | None) -> int | None:
    """Days from the newest launch to `today`; None where that is not known, or the clock that dated it was ahead."""
    days = [day for record in records if (day := _day(record.info.started_at_utc or "")) is not None]
    age = (today - max(days)).days if today and days else -1
    return age if age >= 0 else None


def _day(text: str) -> Day | None:
    try:
        return Day.fromisoformat(text[:10])
    except ValueError:
        return None  # an import's, in whatever form


def precision_of(row: Row) -> str | None:
    return precision(row.first)


def options(row: Row) -> str | None:
    """Those that were set; what is left to the runtime says nothing."""
    return " ".join(f"{name}={value}" for name, value in sorted(row.options.items()) if value is not None) or None


def isa(row: Row) -> str | None:
    return row.first.facts.isa if row.first.facts else None


def runtime(row: Row) -> str | None:
    return " ".join(f"{name} {version}" for name, version in row.first.covariates.runtime.items()) or None


def date(row: Row) -> str | None:
    return (row.first.info.started_at_utc or "")[:10] or None


def gate_class(row: Row) -> str | None:
    return row.first.gate.class_ if row.first.gate else None
