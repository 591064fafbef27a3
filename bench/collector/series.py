"""Readings of one sensor over time, and the energy that they trace: as a function of time, or why it is not known.

Pure. Times are of the monotonic clock, in nanoseconds; within a curve in seconds since its first reading, so that no
digit is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bench.collector.sensors import Sensor

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

RESET, IMPOSSIBLE = "counter reset", "impossible reading"
GAP_S, GAP_PERIODS = 1.0, 5


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time."""

    begin_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.begin_ns) / 1e9


@dataclass(frozen=True, eq=False)
class Series:
    """Readings of a sensor in order of time; `at_ns` is the middle of each, NaN stands where it could not be read."""

    sensor: Sensor
    at_ns: Times
    values: Floats

    @classmethod
    def of(cls, sensor: Sensor, readings: Iterable[tuple[int, float | None]]) -> Series:
        """The series of `readings` in any order. Of several at the same time one stays, one that could be read."""
        rows = sorted(((at_ns, _number(value)) for at_ns, value in readings), key=_order)
        kept = [row for index, row in enumerate(rows) if index == 0 or row[0] != rows[index - 1][0]]
        at_ns = np.array([at for at, _ in kept], np.int64)
        return cls(sensor, at_ns, np.array([value for _, value in kept], np.float64))

    @property
    def known(self) -> bool:
        """Whether it could be read at least once."""
        return bool(np.any(~np.isnan(self.values)))

    @property
    def first_ns(self) -> int:
        """Time of the first reading that succeeded; 0 where none did."""
        return int(self.at_ns[~np.isnan(self.values)][0]) if self.known else 0

    @property
    def first(self) -> float | None:
        """The first reading that succeeded; None where none did."""
        return float(self.values[~np.isnan(self.values)][0]) if self.known else None

    @property
    def last_ns(self) -> int:
        """Time of the last reading that succeeded; 0 where none did."""
        return int(self.at_ns[~np.isnan(self.values)][-1]) if self.known else 0

    def sound(self, most: float | None = None) -> npt.NDArray[np.bool_]:
        """Which readings the sensor can have meant: not negative, not above `most` nor its own bounds."""
        bounds = [bound for bound in (most, self.sensor.most, self.sensor.wraps_at) if bound is not None]
        return (self.values >= 0) & (self.values <= min(bounds, default=math.inf))


@dataclass(frozen=True, eq=False, kw_only=True)
class Curve:
    """Energy over time, between knots a polynomial of degree 1 or 2; `reasons` has why it is not known there, or None.

    `updates_ns` are readings that told something new, about `pace_s` apart. `holds` are stretches in which a counter
    showed one value. `reads_ns` are all sound readings, `dropped_ns` those that were left out as nonsense.
    """

    sensor: Sensor
    reads_ns: Times
    dropped_ns: Times
    updates_ns: Times
    pace_s: float
    knots_ns: Times
    energy_j: Floats
    start_w: Floats
    bend_w_per_s: Floats
    reasons: Sequence[str | None]
    holds: Sequence[Window] = field(default=())

    def why_not(self, window: Window) -> str | None:
        """Why the energy of `window` is not known; None where it is. A reset is told before anything else."""
        if len(self.knots_ns) < 2:
            few = "one reading only" if len(self.knots_ns) else "no reading"
            return IMPOSSIBLE if len(self.dropped_ns) else few
        first = int(np.searchsorted(self.knots_ns, window.begin_ns, "right")) - 1
        last = int(np.searchsorted(self.knots_ns, window.end_ns, "left"))
        whys = [why for why in self.reasons[max(first, 0) : last] if why is not None]
        if whys:
            return next((why for why in whys if why in (RESET, IMPOSSIBLE)), whys[0])
        late_s = (int(self.knots_ns[0]) - window.begin_ns) / 1e9
        early_s = (window.end_ns - int(self.knots_ns[-1])) / 1e9
        if late_s > 0:
            return f"readings begin {late_s:.2g} s after the window"
        return f"readings end {early_s:.2g} s before the window" if early_s > 0 else None

    def energy_at(self, at_ns: Times) -> Floats:
        """Energy since the first knot; only differences within sound stretches mean anything."""
        index = np.clip(np.searchsorted(self.knots_ns, at_ns, "right") - 1, 0, len(self.knots_ns) - 2)
        dt_s = (at_ns - self.knots_ns[index]) / 1e9
        return np.asarray(self.energy_j[index] + dt_s * (self.start_w[index] + dt_s * self.bend_w_per_s[index]))

    def joules(self, window: Window) -> float:
        """Energy of a window that is known (`why_not`)."""
        begin_j, end_j = self.energy_at(np.array([window.begin_ns, window.end_ns], np.int64))
        return max(0.0, float(end_j - begin_j))

    def doubt_s(self, window: Window) -> float:
        """For how long, at the two edges together, it is not known what was used when: about two updates."""
        edges = np.array([window.begin_ns, window.end_ns], np.int64)
        index = np.clip(np.searchsorted(self.knots_ns, edges, "right") - 1, 0, len(self.knots_ns) - 2)
        apart_s = (self.knots_ns[index + 1] - self.knots_ns[index]) / 1e9
        return float(np.maximum(apart_s, max(self.pace_s, self.sensor.averaging_s)).sum())

    def covered_s(self, window: Window) -> float:
        """How much of `window` lies between readings that leave no gap."""
        overlap_s = self._overlap_s(window)
        return float(overlap_s[np.diff(self.reads_ns) / 1e9 <= gap_limit_s(self.sensor)].sum())

    def largest_gap_s(self, windows: Sequence[Window]) -> float | None:
        """The longest time between two readings that some window overlaps; None where there is none."""
        apart_s = np.diff(self.reads_ns) / 1e9
        gaps = [apart_s[self._overlap_s(window) > 0].max(initial=0.0) for window in windows]
        return float(max(gaps, default=0.0)) or None

    def _overlap_s(self, window: Window) -> Floats:
        begin = np.maximum(self.reads_ns[:-1], window.begin_ns)
        end = np.minimum(self.reads_ns[1:], window.end_ns)
        return np.asarray(np.maximum(end - begin, 0) / 1e9)


def gauge_curve(series: Series, most_w: float) -> Curve:
    """The trapezoid over power readings; repeated values are readings too.

    A reading that is an average is taken to be of the middle of what it averages (telemetry.md 6.1, rule 6).
    """
    known, sound = ~np.isnan(series.values), series.sound(most_w)
    at_ns = series.at_ns - round(series.sensor.averaging_s * 1e9 / 2)
    knots_ns, power_w = at_ns[sound], series.values[sound]
    apart_s = np.diff(knots_ns) / 1e9
    limit_s = gap_limit_s(series.sensor)
    return Curve(
        sensor=series.sensor,
        reads_ns=knots_ns,
        dropped_ns=at_ns[known & ~sound],
        updates_ns=knots_ns,
        pace_s=series.sensor.period_s,
        knots_ns=knots_ns,
        energy_j=np.concatenate([[0.0], np.cumsum(apart_s * (power_w[:-1] + power_w[1:]) / 2)]),
        start_w=power_w[:-1],
        bend_w_per_s=np.diff(power_w) / apart_s / 2,
        reasons=[f"gap of {each:.2g} s" if each > limit_s else None for each in apart_s.tolist()],
    )


def counter_curve(series: Series, most_w: float) -> Curve:
    """The line through a counter's updates, unwrapped; broken where it was reset or grew more than `most_w` allows.

    A single reading far off, after which the counter goes on as before, is left out (intel/compute-runtime #938).
    """
    sound = series.sound()
    trace = _Trace(series.sensor, series.at_ns[sound].tolist(), series.values[sound].tolist(), most_w)
    trace.follow()
    knots_ns, energy_j = np.array(trace.knots_ns, np.int64), np.array(trace.energy_j, np.float64)
    bad_ns = series.at_ns[~np.isnan(series.values) & ~sound]
    return Curve(
        sensor=series.sensor,
        reads_ns=np.setdiff1d(series.at_ns[sound], trace.dropped_ns),
        dropped_ns=np.concatenate([bad_ns, np.array(trace.dropped_ns, np.int64)]),
        updates_ns=np.array(trace.updates_ns, np.int64),
        pace_s=trace.pace_s,
        knots_ns=knots_ns,
        energy_j=energy_j,
        start_w=np.diff(energy_j) / (np.diff(knots_ns) / 1e9),
        bend_w_per_s=np.zeros(max(0, len(knots_ns) - 1)),
        reasons=trace.reasons,
        holds=trace.holds,
    )


class _Trace:
    """Follows a counter from reading to reading. When its first value was reached is not known: no update."""

    def __init__(self, sensor: Sensor, at_ns: list[int], values: list[float], most_w: float):
        self._at_ns, self._values, self._most_w, self._wraps_at = at_ns, values, most_w, sensor.wraps_at
        changes = [at for at, before, after in zip(at_ns[1:], values, values[1:], strict=False) if before != after]
        self.pace_s = max(sensor.period_s, float(np.median(np.diff(changes))) / 1e9 if len(changes) > 1 else 0.0)
        self.knots_ns, self.updates_ns, self.dropped_ns = at_ns[:1], list[int](), list[int]()
        self.energy_j, self.reasons, self.holds = [0.0] * len(at_ns[:1]), list[str | None](), list[Window]()

    def follow(self) -> None:
        last = since = 0
        why: str | None = "no update before the window"
        level_j = 0.0
        for index in range(1, len(self._at_ns)):
            grown_j, broken = self._step(last, index, since)
            if broken and self._is_spike(last, index, since):
                self.dropped_ns.append(self._at_ns[index])
                continue
            if broken or grown_j:
                self.holds.append(Window(self._at_ns[since], self._at_ns[last]))
                since = index
            why = broken or why
            if grown_j:
                level_j += grown_j
                self._knot(index, level_j, why)
                self.updates_ns.append(self._at_ns[index])
                why = None
            last = index
        if self._at_ns and self._at_ns[last] > self.knots_ns[-1]:
            self._knot(last, level_j, why or "no update after the window")
        if self._at_ns:
            self.holds.append(Window(self._at_ns[since], self._at_ns[last]))

    def _knot(self, index: int, level_j: float, why: str | None) -> None:
        self.knots_ns.append(self._at_ns[index])
        self.energy_j.append(level_j)
        self.reasons.append(why)

    def _step(self, before: int, after: int, since: int) -> tuple[float, str | None]:
        """(how much it grew, None) or (0, why that is not known); the value of `before` was first seen at `since`.

        A reading may be as old as the time between two updates. What is added after a pause may belong to all of it.
        """
        grown_j = self._values[after] - self._values[before]
        apart_s = (self._at_ns[after] - self._at_ns[before]) / 1e9
        most_j = self._most_w * (apart_s + self.pace_s)
        wrapped = grown_j < 0 and self._wraps_at is not None
        grown_j += self._wraps_at or 0.0 if wrapped else 0.0
        if grown_j < 0 or (wrapped and grown_j > most_j):
            return 0.0, RESET
        if self._wraps_at is not None and grown_j + self._wraps_at <= most_j:
            return 0.0, f"gap of {apart_s:.2g} s: the counter may have wrapped unseen"
        since_s = (self._at_ns[after] - self._at_ns[since]) / 1e9
        return (grown_j, None) if grown_j <= self._most_w * (since_s + self.pace_s) else (0.0, IMPOSSIBLE)

    def _is_spike(self, last: int, index: int, since: int) -> bool:
        """No way leads from this reading to the next, but one does from the last to the next."""
        after = index + 1
        if after == len(self._at_ns):
            return False
        return bool(self._step(index, after, index)[1]) and not self._step(last, after, since)[1]


def gap_limit_s(sensor: Sensor) -> float:
    """Readings further apart than this leave a gap: what a gauge showed in between is not known."""
    return max(GAP_PERIODS * sensor.period_s, GAP_S)


def _number(value: object) -> float:
    """NaN for what is no finite number."""
    try:
        number = float(value) if isinstance(value, (int, float)) else math.nan
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _order(row: tuple[int, float]) -> tuple[int, bool, float]:
    at_ns, value = row
    return (at_ns, math.isnan(value), 0.0 if math.isnan(value) else value)
