"""The one table model: which records make a row, which rows a group, in what order, and the columns. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date as Day
from typing import Any

from bench.reports.column import Cell, Column
from bench.reports.columns import COLUMNS
from bench.reports.grouping import NATIVE, headings, must_be_equal
from bench.reports.published_columns import AGE
from bench.reports.row import Row, age_days, precision_of
from bench.reports.summary import summarize
from bench.results.keys import canonical_json
from bench.results.record import Record

_RANK = {"ok": 0, "unproven": 1, "invalid": 2, "failed": 3, "unsupported": 4}


@dataclass(frozen=True, slots=True)
class Table:
    """Groups of rows in order; nothing is ranked across groups. `columns` for a terminal, `published` for a page."""

    groups: tuple[tuple[Row, ...], ...]
    columns: tuple[Column, ...]
    published: tuple[Column, ...]
    all_columns: tuple[Column, ...] = field(default=COLUMNS)

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for group in self.groups for row in group)

    @property
    def headed(self) -> bool:
        """Whether each group has a heading, which is its rows' `group`; columns that it says are not shown then.

        Where every group is one row nothing is ranked, and columns say what tells the rows apart.
        """
        return _headed(self.groups)

    def cells(self, row: Row) -> list[Cell]:
        """All values of `row` in base units, shown or not, None where not measured."""
        return [column.of(row) for column in self.all_columns]

    def texts(self, row: Row) -> list[str]:
        """What a terminal shows of `row`."""
        return [column.read(row) for column in self.columns]


def build_table(records: Iterable[Record], today: Day | None = None) -> Table:
    """One row per series, precision, covariates and status, published or own; its launches are summarized together.

    Rows stand in groups that agree in model, scheme, workload, fidelity and precision. In each the proven come first,
    the fastest leading, then the unproven, then what must not be believed or did not run; groups without a proven row
    follow those that have one. Columns that tell no row from another, or hold nothing, are not shown. Ages are those
    of `today` (UTC).
    """
    groups = tuple(_groups(_rows(records, today)))
    rows = [row for group in groups for row in group]
    peers: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        peers.setdefault(_looks(row.first), []).append(row)
    told = [column for column in COLUMNS if not (column.in_heading and _headed(groups))]
    texts = {column.key: [[column.read(row) for row in alike] for alike in peers.values()] for column in told}
    age = replace(AGE, header=f"{AGE.header} on {today}")  # else it would be wrong on the day after
    return Table(
        groups=groups,
        columns=tuple(column for column in told if column.shown(texts[column.key])),
        published=tuple(
            age if column is AGE else column for column in told if (column.published or column.shown)(texts[column.key])
        ),
    )


def _headed(groups: Sequence[Sequence[Row]]) -> bool:
    firsts = [group[0] for group in groups]
    told_by_columns = {(*_place(row)[:3], precision_of(row), row.first.identity.scheme) for row in firsts}
    return len(groups) > 1 and (len(told_by_columns) < len(groups) or any(len(group) > 1 for group in groups))


def _rows(records: Iterable[Record], today: Day | None) -> list[Row]:
    launches: dict[bytes, list[Record]] = {}
    for record in records:
        redacted = record.info.redacted
        key: list[Any] = [record.series_key, record.precision_key, record.status, record.origin, redacted]
        key.append(record.covariates)
        if record.reason is not None:
            key.append(record.reason.what)  # two ways to fail are two rows
        launches.setdefault(canonical_json(key), []).append(record)
    return [
        Row(
            records=tuple(group),
            summary=summarize(group),
            options=_distinguishing(group[0], launches.values()),
            age_days=age_days(group, today),
        )
        for group in launches.values()
    ]


def _groups(rows: Iterable[Row]) -> Iterator[tuple[Row, ...]]:
    """The rows that may be ranked among each other, in order, with what they have in common and relative rates."""
    found: dict[bytes, list[Row]] = {}
    for row in sorted(rows, key=_order):
        found.setdefault(canonical_json(must_be_equal(row.first)), []).append(row)
    called = dict(zip(found, headings(must_be_equal(group[0].first) for group in found.values()), strict=True))
    for key in sorted(found, key=lambda key: (_rank(found[key][0]), *_place(found[key][0]), key)):
        rates = [row.headline.value for row in found[key] if row.first.proven and row.headline.value]
        yield tuple(
            replace(row, group=called[key], relative_ratio=_share(row, max(rates, default=None))) for row in found[key]
        )


def _share(row: Row, fastest: float | None) -> float | None:
    rate = row.headline.value if row.first.proven else None
    return rate / fastest if rate and fastest else None


def latest(records: Iterable[Record]) -> list[Record]:
    """Of each case the records of its newest sweep (of its newest launch where no sweep is named), in input order.

    A case that failed once and now executes shows what it does now. What was published and what was measured here
    are apart: neither hides the other.
    """
    found = list(records)
    newest: dict[tuple[str, bool], tuple[str, str]] = {}
    for record in found:
        # both ids sort by time, so the greater launch belongs to the newer sweep
        newest[_case(record)] = max(newest.get(_case(record), ("", "")), (record.launch_id, _sweep(record)))
    return [record for record in found if _sweep(record) == newest[_case(record)][1]]


def _case(record: Record) -> tuple[str, bool]:
    """What was asked for, on one host, and whether it was published.

    Identity holds what executed too, which a record that failed does not know.
    """
    asked, _, _ = (record.info.case_key or "").partition("/")
    return f"{asked} {record.identity.host_id}" if asked else record.series_key, record.info.redacted


def _sweep(record: Record) -> str:
    return record.info.sweep_id or record.launch_id


def _rank(row: Row) -> int:
    return _RANK["unproven"] if row.first.status == "ok" and not row.first.proven else _RANK[row.first.status]


def _order(row: Row) -> tuple[Any, ...]:
    """In a group."""
    return _rank(row), -(row.headline.value or 0.0), row.first.record_id


def _place(row: Row) -> tuple[Any, ...]:
    """Of a group, among those of its rank: by name, for to order precisions by speed would rank them."""
    identity = row.first.identity
    return row.model, identity.workload.name, identity.fidelity != NATIVE, precision_of(row) or ""


def _looks(record: Record) -> tuple[str, ...]:
    """What every table shows of a row: rows equal in it need further columns to be told apart."""
    identity = record.identity
    return identity.model, identity.scheme, identity.backend, identity.workload.name


def _distinguishing(record: Record, groups: Iterable[Sequence[Record]]) -> dict[str, Any]:
    """Options of `record` whose value is another in some row that looks like it; an open-ended one may be missing."""
    others = [group[0].identity.options for group in groups if _looks(group[0]) == _looks(record)]
    return {
        name: value
        for name, value in record.identity.options.items()
        if any((name in other or "." in name) and other.get(name) != value for other in others)
    }
