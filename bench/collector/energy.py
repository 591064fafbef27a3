"""From readings and windows of time to joules: by the counter's difference, else the trapezoid over power, else None.

Pure. What readings cannot carry has no number but a reason: no total leaves out a window (telemetry.md 6.1, rules 6
to 9).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bench.collector.series import IMPOSSIBLE, RESET, Curve, Series, Window, counter_curve, gauge_curve
from bench.units import render_number

__all__ = ["Extremes", "Idle", "Used", "Window", "extremes", "grown", "mean_power", "used"]

MOST_W = 10_000.0
"""No device uses more; where its limit is known, callers say less."""
FINE_UPDATES, LEAST_UPDATES = 20, 5
DOUBT_RATIO = 0.4
"""What five updates in one window leave in doubt: two of them. There is no number that is more doubtful."""
AVERAGES = 5
"""A window holds so many averaging times of an averaging gauge."""
STUCK = "counter stuck"
STUCK_PERIODS, STUCK_S = 10, 2.0
MISMATCH_RATIO, CONTRADICTION, MISMATCH_S = 0.10, 1.5, 5.0
"""By how much the methods may differ over so long before it is flagged, and by what factor before neither counts."""
IDLE_S, SLICE_S = 5.0, 1.0

Method = Literal["counter", "integral"]


@dataclass(frozen=True, slots=True)
class Used:
    """Energy of all windows together; `joules` None with the `reason`. Gross.

    `updates` and what follows tell of the method that gave the joules, else of the one tried first. `integral_ratio`
    is counter / integral where both are known. `flags`: coarse, dropped-readings, counter-mismatch, and why the
    integral stands for a counter (counter-stuck, counter-reset, impossible-reading). What may be off by more than
    40 % has no joules, nor where counter and integral differ by more than half of the smaller.
    """

    joules: float | None = None
    method: Method | None = None
    reason: str | None = None
    mean_w: float | None = None
    updates: int = 0
    coverage_ratio: float | None = None
    largest_gap_s: float | None = None
    uncertainty_j: float | None = None
    integral_ratio: float | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Idle:
    """Mean power at rest and its standard deviation over slices of 1 s; None with the reason."""

    mean_w: float | None = None
    sd_w: float | None = None
    duration_s: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Extremes:
    """Of readings within windows; None where there is none."""

    lowest: float | None = None
    mean: float | None = None
    highest: float | None = None


def used(counter: Series | None, power: Series | None, windows: Sequence[Window], most_w: float | None = None) -> Used:
    """Energy that one part of a device used in `windows` together; windows that overlap count twice.

    `most_w` is what its power cannot exceed, some 1.5 times its limit; readings beyond it are nonsense.
    """
    if any(window.seconds < 0 for window in windows):
        return Used(reason="a window ends before it begins")
    lasting = sorted((window for window in windows if window.seconds > 0), key=lambda each: each.begin_ns)
    if not lasting:
        return Used(reason="no window")
    limit_w = _limit_w(power, most_w)
    tried = []
    for method, curve in _curves(counter, power, limit_w):
        stuck = method == "counter" and _stuck(curve, power, lasting)
        tried.append(_judged(method, curve, lasting, limit_w, stuck))
    if not tried:
        return Used(reason=_unreadable(counter, power))
    best = next((each for each in tried if each.joules is not None), tried[0])
    reason = None if best.joules is not None else _joined(tried)
    return _compared(replace(best, reason=reason), tried, sum(window.seconds for window in lasting))


def mean_power(counter: Series | None, power: Series | None, window: Window) -> Idle:
    """Mean power between the first and the last update within `window`, which must be 5 s apart; `sd_w` its spread.

    `sd_w` is None where updates are rarer than the slices.
    """
    limit_w = _limit_w(power, None)
    found = []
    for method, curve in _curves(counter, power, limit_w):
        inside = curve.updates_ns[(curve.updates_ns >= window.begin_ns) & (curve.updates_ns <= window.end_ns)]
        if method == "counter" and _stuck(curve, power, [window]):
            found.append(Idle(reason=STUCK))
            continue
        clipped = Window(int(inside[0]), int(inside[-1])) if len(inside) else Window(0, 0)
        if clipped.seconds < IDLE_S:
            why = f"window too short: {clipped.seconds:.3g} s, {len(inside)} updates"
            found.append(Idle(duration_s=clipped.seconds, reason=curve.why_not(window) or why))
            continue
        told = _judged(method, curve, [clipped], limit_w)
        spread_w = _spread_w(curve, clipped) if told.joules is not None else None
        found.append(Idle(told.mean_w, spread_w, clipped.seconds, told.reason))
    if not found:
        return Idle(reason=_unreadable(counter, power))
    return next((each for each in found if each.mean_w is not None), replace(found[0], reason=_joined(found)))


def grown(series: Series, windows: Sequence[Window]) -> tuple[float, float] | None:
    """By how much a counter grew, and in how many seconds: from the last reading before each window to the first after.

    What lies between two readings counts once, however many windows share it. None where there is no reading on
    either side, where the counter was reset, or where a time grew by more than passed.
    """
    sound = series.sound()
    at_ns, values = series.at_ns[sound], series.values[sound]
    counted = np.zeros(max(0, len(at_ns) - 1), np.bool_)
    for window in windows:
        first = int(np.searchsorted(at_ns, window.begin_ns, "right")) - 1
        last = int(np.searchsorted(at_ns, window.end_ns, "left"))
        if first < 0 or last >= len(at_ns):
            return None
        counted[first:last] = True
    steps = np.diff(values)[counted]
    if series.sensor.wraps_at is not None:
        wrapped = np.where(steps < 0, steps + series.sensor.wraps_at, steps)
        steps = np.where(wrapped > series.sensor.wraps_at / 2, steps, wrapped)
    passed_s = np.diff(at_ns)[counted] / 1e9
    absurd = series.sensor.quantity == "throttle-time" and bool(np.any(steps > passed_s + 1.0))
    return None if not windows or absurd or bool(np.any(steps < 0)) else (float(steps.sum()), float(passed_s.sum()))


def extremes(series: Series, windows: Sequence[Window]) -> Extremes:
    """The lowest, mean and highest reading within `windows`, edges included; of all readings without windows."""
    inside = np.full(len(series.at_ns), not windows)
    for window in windows:
        inside |= (series.at_ns >= window.begin_ns) & (series.at_ns <= window.end_ns)
    values = series.values[inside & series.sound()]
    return Extremes(float(values.min()), float(values.mean()), float(values.max())) if len(values) else Extremes()


def _curves(counter: Series | None, power: Series | None, limit_w: float) -> Iterator[tuple[Method, Curve]]:
    if counter is not None and counter.known:
        yield "counter", counter_curve(counter, limit_w)
    if power is not None and power.known:
        yield "integral", gauge_curve(power, limit_w)


def _limit_w(power: Series | None, most_w: float | None) -> float:
    given = [each for each in (most_w, power.sensor.most if power else None) if each is not None]
    return min((each for each in given if 0 < each < math.inf), default=MOST_W)


def _unreadable(counter: Series | None, power: Series | None) -> str:
    return "no sensor" if counter is None and power is None else "the sensor could never be read"


def _joined(tried: Sequence[Used] | Sequence[Idle]) -> str:
    """The reasons of all methods that were tried, the counter's first."""
    return "; power: ".join(str(each.reason) for each in tried)


def _stuck(curve: Curve, power: Series | None, windows: Sequence[Window]) -> bool:
    """Whether a counter stood still in `windows` while energy was used, as far as power readings do not deny it."""
    if _broken(curve, windows):
        return False
    seconds = sum(window.seconds for window in windows)
    reads = sum(_inside(curve.reads_ns, window) for window in windows)
    updates = sum(_inside(curve.updates_ns, window) for window in windows)
    if seconds >= max(STUCK_S, 2 * curve.pace_s) and reads > 1 and not updates:
        return True
    lag_ns = round(curve.pace_s * 1e9)
    for window in windows:
        for hold in curve.holds:
            both = Window(max(window.begin_ns, hold.begin_ns), min(window.end_ns, hold.end_ns))
            if both.seconds > STUCK_PERIODS * curve.pace_s:
                within = Window(both.begin_ns + lag_ns, both.end_ns - lag_ns)
                highest_w = extremes(power, [within]).highest if power is not None else None
                if highest_w is None or highest_w > 0:
                    return True
    return False


def _broken(curve: Curve, windows: Sequence[Window]) -> bool:
    return any(curve.why_not(window) in (RESET, IMPOSSIBLE) for window in windows)


def _inside(at_ns: Sequence[int] | np.ndarray, window: Window) -> int:
    """How many times lie in a window, its begin left out: adjacent windows share none."""
    return int(np.searchsorted(at_ns, window.end_ns, "right") - np.searchsorted(at_ns, window.begin_ns, "right"))


def _judged(method: Method, curve: Curve, windows: Sequence[Window], limit_w: float, stuck: bool = False) -> Used:
    """What one method gives for all windows together, or why nothing."""
    seconds = sum(window.seconds for window in windows)
    updates = sum(_inside(curve.updates_ns, window) for window in windows)
    dropped = any(_inside(np.sort(curve.dropped_ns), window) for window in windows)
    told = Used(
        updates=updates,
        coverage_ratio=min(1.0, sum(curve.covered_s(window) for window in windows) / seconds),
        largest_gap_s=curve.largest_gap_s(windows),
        flags=("dropped-readings",) if dropped else (),
    )
    averaging_s = curve.sensor.averaging_s if method == "integral" else 0.0
    shortest_s = min(window.seconds for window in windows)
    short = f"window too short: {seconds:.3g} s, {updates} updates" + (
        f", {len(windows)} windows" if len(windows) > 1 else ""
    )
    why = STUCK if stuck else next(filter(None, map(curve.why_not, windows)), None)
    if why is None and updates < LEAST_UPDATES:
        why = short
    if why is None and shortest_s < AVERAGES * averaging_s:
        why = f"window too short: {shortest_s:.3g} s, for power that is averaged over {averaging_s:.3g} s"
    if why is not None:
        return replace(told, reason=why)
    joules = sum(curve.joules(window) for window in windows)
    doubt_ratio = sum(curve.doubt_s(window) for window in windows) / seconds
    uncertainty_j = joules * doubt_ratio
    if joules == 0:
        return replace(told, reason="power reads 0 throughout")
    if doubt_ratio > DOUBT_RATIO:
        return replace(told, reason=f"{short}: uncertain by {doubt_ratio:.0%}")
    if joules - uncertainty_j > limit_w * seconds:
        return replace(told, reason=IMPOSSIBLE)
    return replace(
        told,
        joules=joules,
        method=method,
        mean_w=joules / seconds,
        uncertainty_j=uncertainty_j,
        flags=("coarse",) * (updates < FINE_UPDATES) + told.flags,
    )


def _compared(best: Used, tried: Sequence[Used], seconds: float) -> Used:
    """With the ratio of both methods, or a flag for why the first gave nothing; no joules where they contradict."""
    flags, first = best.flags, tried[0]
    if best.joules is not None and first.joules is None and first.reason in (STUCK, RESET, IMPOSSIBLE):
        flags = (*flags, first.reason.replace(" ", "-"))
    if len(tried) < 2 or first.joules is None or not tried[1].joules:
        return replace(best, flags=flags)
    ratio = first.joules / tried[1].joules
    if seconds < MISMATCH_S or abs(ratio - 1) <= MISMATCH_RATIO:
        return replace(best, integral_ratio=ratio, flags=flags)
    found = replace(best, integral_ratio=ratio, flags=(*flags, "counter-mismatch"))
    if max(ratio, 1 / ratio) <= CONTRADICTION:
        return found
    both = f"counter {render_number(first.joules)} J, power readings {render_number(tried[1].joules)} J"
    return replace(found, joules=None, method=None, mean_w=None, uncertainty_j=None, reason=f"{both}: one is wrong")


def _spread_w(curve: Curve, window: Window) -> float | None:
    """Standard deviation of power over whole slices; None where a slice may hold no update."""
    if curve.pace_s > SLICE_S:
        return None
    edges_ns = np.arange(window.begin_ns, window.end_ns + 1, round(SLICE_S * 1e9), dtype=np.int64)
    return float(np.std(np.diff(curve.energy_at(edges_ns)) / SLICE_S, ddof=1))
