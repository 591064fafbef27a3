"""The one table model: which records make a row, in what order, and the declared columns. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.reports.column import Cell, Column
from bench.reports.columns import COLUMNS
from bench.reports.row import Row
from bench.reports.summary import summarize
from bench.results.keys import canonical_json
from bench.results.record import Record

_RANK = {"ok": 0, "unproven": 1, "invalid": 2, "failed": 3, "unsupported": 4}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows in order, and the columns to show; `cells` gives any column's values, shown or not."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    all_columns: tuple[Column, ...] = field(default=COLUMNS)

    def cells(self, row: Row, *, everything: bool = False) -> list[Cell]:
        """Values of `row` in base units, None where not measured."""
        return [column.of(row) for column in (self.all_columns if everything else self.columns)]

    def texts(self, row: Row) -> list[str]:
        """The shown columns of `row` for people."""
        return [column.read(row) for column in self.columns]


def build_table(records: Iterable[Record]) -> Table:
    """One row per series, precision, covariates and status, published or own; its launches are summarized together.

    Proven rows come first, then the unproven, then what must not be believed or did not run; among rows of one model
    and workload the fastest leads. Columns that tell no row from another, or hold nothing, are not shown.
    """
    groups: dict[bytes, list[Record]] = {}
    for record in records:
        redacted = record.info.redacted
        key: list[Any] = [record.series_key, record.precision_key, record.status, record.origin, redacted]
        key.append(record.covariates)
        if record.reason is not None:
            key.append(record.reason.what)  # two ways to fail are two rows
        groups.setdefault(canonical_json(key), []).append(record)
    rows = [
        Row(records=tuple(group), summary=summarize(group), options=_distinguishing(group[0], groups.values()))
        for group in groups.values()
    ]
    rows.sort(key=_order)
    peers: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        peers.setdefault(_looks(row.first), []).append(row)
    shown = (column for column in COLUMNS if column.shown([[column.read(row) for row in p] for p in peers.values()]))
    return Table(columns=tuple(shown), rows=tuple(rows))


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


def _order(row: Row) -> tuple[Any, ...]:
    first, rate = row.first, row.headline.value
    rank = _RANK["unproven"] if first.status == "ok" and not first.proven else _RANK[first.status]
    return rank, row.model, first.identity.workload.name, -(rate or 0.0), first.record_id


def _looks(record: Record) -> tuple[str, ...]:
    """What every table shows of a row: rows equal in it need further columns to be told apart."""
    identity = record.identity
    return identity.model, identity.scheme, identity.backend, identity.workload.name


def _distinguishing(record: Record, groups: Iterable[Sequence[Record]]) -> dict[str, Any]:
    """Options of `record` whose value is another in some row that looks like it."""
    others = [group[0].identity.options for group in groups if _looks(group[0]) == _looks(record)]
    return {
        name: value
        for name, value in record.identity.options.items()
        if any(name in other and other[name] != value for other in others)
    }
