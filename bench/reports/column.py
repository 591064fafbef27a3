"""What a column is: where its values come from, how they read, and which tables show it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.reports.row import Row
from bench.units import NOT_MEASURED, render_bytes, render_duration, render_number

Cell = str | int | float | None

Peers = Sequence[Sequence[str]]
"""Texts of one column: a list for each set of rows that share model, backend and workload."""


def always(values: Peers) -> bool:
    """Shown in every table."""
    return True


def when_used(values: Peers) -> bool:
    """Shown where some row has a value."""
    return any(value != NOT_MEASURED for peers in values for value in peers)


def when_differing(values: Peers) -> bool:
    """Shown where it tells apart rows that look alike otherwise."""
    return any(len(set(peers) - {NOT_MEASURED}) > 1 for peers in values)


def when_mixed(values: Peers) -> bool:
    """Shown where not all rows have the same, whether they look alike or not."""
    return when_differing([[value for peers in values for value in peers]])


def never(values: Peers) -> bool:
    """In no such table; CSV has every column."""
    return False


def plain(value: Cell) -> str:
    """Text as it is."""
    return NOT_MEASURED if value is None else str(value)


def number(value: Cell) -> str:
    """Three significant digits."""
    return value if isinstance(value, str) else render_number(value)


def ratio(value: Cell) -> str:
    """Two decimals."""
    return f"{value:.2f}" if isinstance(value, int | float) else NOT_MEASURED


def size(value: Cell) -> str:
    """Decimal bytes, as short as `free -h` writes them."""
    return render_bytes(value, 2).replace(" ", "").rstrip("B") if isinstance(value, int | float) else NOT_MEASURED


def percent(value: Cell) -> str:
    """Two significant digits."""
    return f"{render_number(value * 100, 2)} %" if isinstance(value, int | float) else NOT_MEASURED


def duration(value: Cell) -> str:
    """In the unit that suits its size."""
    return value if isinstance(value, str) else render_duration(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: `key` names it in CSV (unit included), `header` for people; `of` yields base units.

    `says`: what people read where that is more than `text` of the value. `folds`: may be broken over lines where a
    terminal is narrow; everything else is never cut. `below`: long text, which stands below the table. `in_heading`:
    equal within a group, so that the headings say it where there are any. `shown`: when a terminal shows it;
    `published`: when a table to publish does, by the same rule unless told.
    """

    key: str
    header: str
    meaning: str
    of: Callable[[Row], Cell]
    text: Callable[[Cell], str] = plain
    numeric: bool = False
    folds: bool = False
    below: bool = False
    in_heading: bool = False
    shown: Callable[[Peers], bool] = never
    published: Callable[[Peers], bool] | None = None
    says: Callable[[Row], str] | None = None

    def read(self, row: Row) -> str:
        """The cell as people read it."""
        return self.says(row) if self.says else self.text(self.of(row))
