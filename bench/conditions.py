"""What the machine and its devices went through while a case was measured, and what of it makes the case doubtful."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bench.collector.energy import Window, extremes, grown
from bench.collector.series import Series
from bench.launch import Launch
from bench.metering import computing
from bench.results.metered import Condition

BUSY_CORES, STEAL_RATIO = 0.1, 0.01
"""More than this beside a case is said: it is not what the case can do."""
HOT_RATIO = 0.01
HEAT = ("therm", "prochot", "hw-slowdown", "brake")
"""In the names of reasons for slowing down that nobody asks for; a power limit is a setting, and a covariate."""
SOON_NS = 1_000_000_000
"""Memory that is read later than this after a moment is not that moment's."""


def of_case(index: int, launch: Launch) -> list[Condition]:
    """What the host and each device went through in the windows of one case; who told nothing is left out."""
    found = [Condition(device="host", **asdict(launch.contention.of(index)))]
    windows = _windows(index, launch)
    if launch.sensed and windows:
        computed = _computed(launch)
        for device in dict.fromkeys(each.sensor.device for each in launch.sensed.series):
            own = [each for each in launch.sensed.series if each.sensor.device == device]
            memory = _memory(own, windows, launch.memory.loaded_ns, launch.heard.prefilled_ns(index))
            others = _others(own, windows) if device in computed else None
            found.append(Condition(device=device, other_processes=others, **memory, **_state(own, windows)))
    return [each for each in found if each != Condition(device=each.device)]


def doubts(found: Sequence[Condition]) -> list[str]:
    """What of a case's conditions makes its figures doubtful, for people."""
    said = []
    for each in found:
        if each.others_cores is not None and each.others_cores > BUSY_CORES:
            said.append(f"other programs kept {each.others_cores:.1f} processors busy beside this case")
        if each.steal_ratio is not None and each.steal_ratio > STEAL_RATIO:
            said.append(f"the hypervisor gave {each.steal_ratio:.0%} of the processors' time to others")
        if each.slowed:
            said.append(f"{each.device} was slowed down: {', '.join(each.slowed)}")
        if each.other_processes:
            said.append(f"other processes on {each.device} beside this case: {each.other_processes}")
        if errors := [f"{kind} {count:.0f}" for kind, count in each.errors.items() if count]:
            said.append(f"errors of {each.device} beside this case: {', '.join(errors)}")
    return said


def too_warm(index: int, launch: Launch, found: Sequence[Condition]) -> str | None:
    """Why the case's rates are not those of its devices: one that computed was too warm. None where none was."""
    seconds = sum(window.seconds for window in _windows(index, launch))
    computed = _computed(launch)
    for each in found:
        ratios = {**each.throttled_ratio, **{reason: slow_s / seconds for reason, slow_s in each.throttle_s.items()}}
        hot = [(ratio, reason) for reason, ratio in ratios.items() if any(word in reason for word in HEAT)]
        ratio, reason = max(hot, default=(0.0, ""))
        if each.device in computed and ratio > HOT_RATIO:
            return f"{each.device} was slowed down for {ratio:.0%} of the time: {reason}"
    return None


def _computed(launch: Launch) -> set[str]:
    facts, sensed = launch.heard.facts, launch.sensed
    return computing(facts.devices, sensed.found) if facts and sensed else set()


def _windows(index: int, launch: Launch) -> list[Window]:
    """The timed samples, and what was executed once more for sensors of energy."""
    timed = [Window(each.began_ns, each.ended_ns) for each in launch.heard.timed_ns.get(index, [])]
    passes = [phase for phase in launch.heard.executed.get(index, []) if phase["own_pass"]]
    return [*timed, *(Window(*window_ns) for phase in passes for window_ns in phase["windows_ns"])]


def _state(own: Sequence[Series], windows: Sequence[Window]) -> dict[str, Any]:
    """Clocks, temperatures, slowing down, limits and errors of one device."""
    clocks = {part: extremes(series, windows) for part, series in _parts(own, "clock").items()}
    limits = [extremes(series, []).highest for series in _parts(own, "power-limit").values()]
    warm = {part: extremes(series, windows).highest for part, series in _parts(own, "temperature").items()}
    slowed = {part: extremes(series, windows).mean for part, series in _parts(own, "throttled").items()}
    return {
        "clock_mean_hz": _known({part: each.mean for part, each in clocks.items()}),
        "clock_lowest_hz": _known({part: each.lowest for part, each in clocks.items()}),
        "temperature_highest_c": _known(warm),
        "throttle_s": _known({part: grown(s, windows) for part, s in _parts(own, "throttle-time").items()}),
        "throttled_ratio": _known(slowed),
        "power_limit_w": next((each for each in limits if each is not None), None),
        "errors": _known({part: grown(s, windows) for part, s in _parts(own, "errors").items()}),
    }


def _memory(
    own: Sequence[Series], windows: Sequence[Window], loaded_ns: int | None, prefilled_ns: Sequence[int]
) -> dict[str, Any]:
    """Memory in use on one device before the worker began, once it had loaded, after prefills, and at most."""
    used = list(_parts(own, "memory-used").values())
    return {
        "memory_before_bytes": _most(_after(series, series.first_ns) for series in used),
        "memory_loaded_bytes": _most(_after(series, loaded_ns) for series in used) if loaded_ns else None,
        "memory_prefilled_bytes": _most(_after(series, at_ns) for series in used for at_ns in prefilled_ns),
        "memory_highest_bytes": _most(extremes(series, windows).highest for series in used),
    }


def _others(own: Sequence[Series], windows: Sequence[Window]) -> int | None:
    """Processes beside the worker's own; None where not even that is seen, as from within a container."""
    around = Window(min(each.begin_ns for each in windows), max(each.end_ns for each in windows))
    seen = _most(
        extremes(series, [_read_around(series, around)]).highest for series in _parts(own, "processes").values()
    )
    return round(seen) - 1 if seen else None


def _read_around(series: Series, window: Window) -> Window:
    """From the last reading before `window` to the first after it: some sensors are read only at the ends of phases."""
    before_ns = series.at_ns[series.at_ns < window.begin_ns]
    after_ns = series.at_ns[series.at_ns > window.end_ns]
    return Window(
        int(before_ns[-1]) if len(before_ns) else window.begin_ns, int(after_ns[0]) if len(after_ns) else window.end_ns
    )


def _after(series: Series, at_ns: int) -> float | None:
    """The first reading at or after a moment; None where none is near."""
    near = series.sound() & (series.at_ns >= at_ns) & (series.at_ns <= at_ns + SOON_NS)
    return float(series.values[np.argmax(near)]) if near.any() else None


def _parts(own: Sequence[Series], quantity: str) -> dict[str, Series]:
    return {series.sensor.part: series for series in own if series.sensor.quantity == quantity}


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _known(found: Mapping[str, float | None]) -> dict[str, float]:
    return {part: value for part, value in found.items() if value is not None}
