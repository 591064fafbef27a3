"""One night from its plan to its findings. What executes and confirms is given: nothing is measured here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from bench.errors import BenchError, BusyError, StoreError
from bench.nightly.history import Annotations, Night, Series, series_of
from bench.nightly.judging import Incident, Judged, judge, settled, to_confirm
from bench.nightly.plan import Entry, NightlyPlan
from bench.results.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A series to be confirmed: its newest record tells the case, `good` the environment that was fast.

    `entry` is the case of the plan that measured it, `pairs` how many pairs are wanted.
    """

    entry: Entry
    series: Series
    good: Night
    pairs: int


class Executor(Protocol):
    """What measures: the seam between judging and executing."""

    def execute(self, entry: Entry) -> list[Record]:
        """All of tonight's records of `entry`, also those that an interrupted night had committed before."""

    def confirm(self, series: Suspect) -> list[float]:
        """Rates of interleaved pairs, new / last good; fewer than wanted where pairs failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What one night found. `records` are all of tonight's that are not quarantined or excluded, `quarantined` those.

    `errors` are entries that could not be executed at all.
    """

    plan: NightlyPlan
    at_utc: str
    judged: tuple[Judged, ...]
    incidents: tuple[Incident, ...]
    records: tuple[Record, ...]
    quarantined: tuple[Record, ...]
    errors: tuple[tuple[Entry, BenchError], ...]


def spend(
    plan: NightlyPlan,
    entries: Sequence[Entry],
    executor: Executor,
    stored: Callable[[], Iterable[Record]],
    annotations: Annotations,
    at_utc: str,
) -> Findings:
    """Execute `entries`, judge what they left against `stored` (read afterwards), and confirm candidates.

    An entry that cannot be executed does not end the night; a machine that is busy, or a store that fails, does.
    """
    of_entry: dict[str, Entry] = {}
    records: list[Record] = []
    errors: list[tuple[Entry, BenchError]] = []
    for entry in entries:
        try:
            found = executor.execute(entry)
        except (BusyError, StoreError):
            raise
        except BenchError as error:
            errors.append((entry, error))
            continue
        records += found
        of_entry.update({record.series_key: entry for record in found})
    judged, incidents = judge(series_of(records, stored(), annotations, at_utc), plan.least_nights)
    results = {
        each.series.key: _confirmed(each, of_entry[each.series.tonight.newest.series_key], executor, plan.pairs)
        for each in to_confirm(judged, incidents)
    }
    kept = [record for record in records if annotations.excluded(record) is None]
    return Findings(
        plan=plan,
        at_utc=at_utc,
        judged=tuple(results.get(each.series.key, each) for each in judged),
        incidents=tuple(incidents),
        records=tuple(record for record in kept if annotations.quarantined(record, at_utc) is None),
        quarantined=tuple(record for record in kept if annotations.quarantined(record, at_utc) is not None),
        errors=tuple(errors),
    )


def _confirmed(judged: Judged, entry: Entry, executor: Executor, pairs: int) -> Judged:
    """What was judged stays known where its pairs cannot be executed."""
    if judged.good is None:
        return replace(judged, why="no night within bounds to compare with")
    try:
        ratios = executor.confirm(Suspect(entry=entry, series=judged.series, good=judged.good, pairs=pairs))
    except BenchError as error:
        return replace(judged, why=f"could not be confirmed: {error}")
    return settled(judged, ratios, pairs)
