"""The columns that only tables to publish have: what a reader needs who did not measure."""

from __future__ import annotations

from bench.reports import row as read
from bench.reports.column import Cell, Column, Peers, always, when_used
from bench.reports.row import FEW_LAUNCHES, STALE_DAYS
from bench.units import NOT_MEASURED

BAR_CELLS = 8


def bar(value: Cell) -> str:
    """A bar of constant width and the per cent that it stands for; 1 is full."""
    if not isinstance(value, int | float):
        return NOT_MEASURED
    filled = round(value * BAR_CELLS)
    return f"{'█' * filled}{'░' * (BAR_CELLS - filled)} {value * 100:.0f} %"


def when_compared(values: Peers) -> bool:
    """Shown where some row is slower than the fastest of its group."""
    return any(value not in (NOT_MEASURED, bar(1.0)) for peers in values for value in peers)


PRECISION = Column(
    key="precision",
    header="precision",
    meaning="class of what the runtime rounded, of each phase where they differ, and the format of its KV cache",
    of=read.precision_of,
    published=always,
    in_heading=True,
)

BADGES = Column(
    key="badges",
    header="status",
    meaning=f"few launches: under {FEW_LAUNCHES}; stale: the newest over {STALE_DAYS} days old; for people behind the "
    "status, which has ! where there are warnings",
    of=lambda row: ", ".join(read.badges(row)) or None,
    says=lambda row: ", ".join([read.flagged_status(row), *read.badges(row)]),
    published=always,
)

RELATIVE = Column(
    key="relative_ratio",
    header="relative",
    meaning="tok/s as a share of the fastest proven row of the group; of proven rows only",
    of=lambda row: row.relative_ratio,
    text=bar,
    published=when_compared,
)

INTERVAL = (
    Column(
        key="headline_tokens_per_s.low",
        header="95 % interval",
        meaning="of tok/s, over launches; for people both ends and how many launches, or n = 1",
        of=lambda row: row.headline.low,
        says=read.interval,
        numeric=True,
        published=always,
    ),
    Column(
        key="headline_tokens_per_s.high",
        header="headline_tokens_per_s.high",
        meaning="upper end of the 95 % interval of tok/s",
        of=lambda row: row.headline.high,
    ),
)

AGE = Column(
    key="age_days",
    header="age",
    meaning="days from the newest launch to the day in the header",
    of=lambda row: row.age_days,
    text=lambda value: NOT_MEASURED if value is None else f"{value} d",
    numeric=True,
    published=when_used,
)
