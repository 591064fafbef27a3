"""The nights of a series: what tonight's value is held against. Pure.

A night is a sweep; its value the median of its launches' headline figures, all of which are rates: more is better. Only
nights of tonight's segment count, which is the same series at the same precision, with the same newest acknowledgement
before it: where a runtime changes its defaults, or a person accepts a new level, history starts anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple, Protocol

import msgspec

from bench.attest import elsewhere_text
from bench.reports.metrics import headline
from bench.reports.summary import summarize
from bench.results.keys import PRECISION
from bench.results.record import Record
from bench.stats.nights import WINDOW
from bench.units import NOT_MEASURED


class Annotation(Protocol):
    """What somebody said of records, as `bench.results.annotations` keeps it."""

    @property
    def id(self) -> str: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def author(self) -> str | None: ...
    @property
    def until_utc(self) -> str | None: ...


class Annotations(Protocol):
    """All that was said, by record. A quarantine is looked up for a moment, else for when the record was measured."""

    def excluded(self, record: Record) -> Annotation | None: ...
    def quarantined(self, record: Record, at_utc: str | None = None) -> Annotation | None: ...
    def acknowledged(self, record: Record) -> Annotation | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """One sweep's launches of one series. `records` are those that count, one a launch, without what was measured."""

    records: tuple[Record, ...]
    value: float

    @property
    def newest(self) -> Record:
        return self.records[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Tonight, and the newest nights of its segment, oldest first.

    `before` is the newest night of an older segment: what changed since is why it ended. `quarantine` holds now,
    `acknowledged` began the segment.
    """

    tonight: Night
    nights: tuple[Night, ...] = ()
    before: Night | None = None
    quarantine: Annotation | None = None
    acknowledged: Annotation | None = None

    @property
    def key(self) -> str:
        """Tells apart what is judged apart: one series at two precisions is two."""
        record = self.tonight.newest
        return f"{record.series_key} {record.precision_key}"


def series_of(
    tonight: Iterable[Record], stored: Iterable[Record], annotations: Annotations, at_utc: str
) -> list[Series]:
    """Every series that was measured tonight, in the order of its first launch.

    `stored` may hold tonight's own records too; it is gone through once. Nights of a quarantine, of an excluded record
    or of what was not measured as a night do not count. `at_utc` is now: quarantines end.
    """
    measured = sorted(_launches(tonight, lambda record: _counts(record, annotations)), key=_by_time)
    sweeps = {sweep_of(launch.record) for launch in measured}
    began = {launch.record.series_key: launch.record.launch_id for launch in reversed(measured)}

    def is_before(record: Record) -> bool:
        older = record.series_key in began and record.launch_id < began[record.series_key]
        return older and sweep_of(record) not in sweeps and _is_night(record, annotations)

    past: dict[str, list[_Launch]] = {key: [] for key in began}
    for launch in _launches(stored, is_before):
        past[launch.record.series_key].append(launch)
    own: dict[tuple[str, str | None], list[_Launch]] = {}
    for launch in measured:
        own.setdefault((launch.record.series_key, launch.record.precision_key), []).append(launch)
    return [_series(launches, past[key], annotations, at_utc) for (key, _), launches in own.items()]


def sweep_of(record: Record) -> str:
    """The night that a record belongs to."""
    return record.info.sweep_id or record.launch_id


def changed(before: Night, now: Night) -> dict[str, tuple[str, str]]:
    """Name to (then, now) of every covariate, precision or part of the interpreter that differs between two nights."""
    then, today = _circumstances(before), _circumstances(now)
    return {
        name: (then.get(name, NOT_MEASURED), today.get(name, NOT_MEASURED))
        for name in sorted({*then, *today})
        if then.get(name) != today.get(name)
    }


class _Launch(NamedTuple):
    record: Record
    value: float


def _launches(records: Iterable[Record], which: Callable[[Record], bool]) -> Iterator[_Launch]:
    """Those whose headline was measured; what no rate can be, a damaged record says."""
    for record in filter(which, records):
        value = summarize(record)[headline(record.identity.workload)].value
        if value is not None and 1e-9 < value < 1e18:
            yield _Launch(_light(record), value)


def _series(tonight: Sequence[_Launch], past: Iterable[_Launch], annotations: Annotations, at_utc: str) -> Series:
    first = tonight[0].record
    same: list[_Launch] = []
    others: list[_Launch] = []
    for launch in past:
        in_segment = _segment(launch.record, annotations) == _segment(first, annotations)
        (same if in_segment else others).append(launch)
    before = _nights(others)
    return Series(
        tonight=_night(tonight),
        nights=tuple(_nights(same)[-WINDOW:]),
        before=before[-1] if before else None,
        quarantine=annotations.quarantined(first, at_utc),
        acknowledged=annotations.acknowledged(first),
    )


def _nights(launches: Iterable[_Launch]) -> list[Night]:
    """By sweep, oldest first."""
    sweeps: dict[str, list[_Launch]] = {}
    for launch in sorted(launches, key=_by_time):
        sweeps.setdefault(sweep_of(launch.record), []).append(launch)
    return [_night(launches) for launches in sweeps.values()]


def _night(launches: Sequence[_Launch]) -> Night:
    return Night(records=tuple(each.record for each in launches), value=median(each.value for each in launches))


def _by_time(launch: _Launch) -> str:
    return launch.record.launch_id  # ids sort by time


def _segment(record: Record, annotations: Annotations) -> tuple[str | None, str | None]:
    """Of one series: records are compared where these are equal."""
    accepted = annotations.acknowledged(record)
    return record.precision_key, accepted.id if accepted else None


def _counts(record: Record, annotations: Annotations) -> bool:
    """Whether its figure may be believed; `unproven` has a history too, for it is compared with itself only."""
    believed = record.status in ("ok", "unproven") and record.origin == "measured"
    return believed and annotations.excluded(record) is None


def _is_night(record: Record, annotations: Annotations) -> bool:
    by_turns = record.info.ab_id is not None  # half of them with an old runtime
    return not by_turns and _counts(record, annotations) and annotations.quarantined(record) is None


def _light(record: Record) -> Record:
    """Who, where and how, without what was measured: a history of years is held in memory."""
    return msgspec.structs.replace(
        record, samples=[], memory=[], energy=None, conditions=[], collector=None, gate=None, load=None, warnings=[]
    )


def _circumstances(night: Night) -> dict[str, str]:
    """Dotted name to value; where launches differ, all values."""
    found: dict[str, dict[str, None]] = {}
    for record in night.records:
        for name, value in _told(record):
            found.setdefault(name, {})[value] = None
    return {name: ", ".join(values) for name, values in found.items()}


def _told(record: Record) -> Iterator[tuple[str, str]]:
    yield from _flat(msgspec.to_builtins(record.covariates))
    if record.info.interpreter is not None:
        used = record.info.interpreter
        parts = {"python": used.python, "prefix": " ".join(used.prefix) or None, "version": used.version}
        others = {name: version for name, version in used.packages.items() if name not in record.covariates.runtime}
        yield from _flat({"interpreter": parts, "packages": others})
    if record.facts is not None:
        facts = msgspec.to_builtins(record.facts)
        phases = {name: facts[name] for name in ("prefill", "decode", "path") if facts[name]}
        of_phases = {name: {part: phase[part] for part in PRECISION} for name, phase in phases.items()}
        plain = {name: facts[name] for name in ("weights", "kv_cache", "isa")}
        yield from _flat({**plain, "elsewhere": elsewhere_text(record.facts), **of_phases})


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{prefix}{name}.")
        elif item is not None:
            yield prefix + name, str(item)
