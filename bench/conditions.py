"""What the machine and its devices went through while a case was measured, and what of it makes the case doubtful."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

import numpy as np

from bench.collector.energy import Window, extremes, grown
from bench.collector.host_memory import SOON_NS
from bench.collector.sampling import Recording
from bench.collector.series import Floats, Series
from bench.launch import Launch
from bench.metering import by_part, computing
from bench.results.metered import Condition

BUSY_CORES, STEAL_RATIO = 0.1, 0.01
"""More than this beside a case is said: it is not what the case can do."""
HOT_RATIO = 0.01
HEAT = ("therm", "prochot")
"""In the names of reasons for slowing down that cooling mends; a power limit is a setting, and a covariate."""
LEAST_FLAGS = 2
T = TypeVar("T")


def of_case(index: int, launch: Launch) -> list[Condition]:
    """What the host and each device went through in the windows of one case; who told nothing is left out."""
    found = [Condition(device="host", **asdict(launch.contention.of(index)))]
    windows = _windows(index, launch)
    if launch.sensed and windows:
        computed = _computed(launch)
        for device in dict.fromkeys(each.sensor.device for each in launch.sensed.series):
            own = _of(device, launch.sensed)
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


def too_warm(index: int, launch: Launch) -> str | None:
    """Why the case's rates are not those of its devices: one that computed was too warm. None where none was.

    Seen in the timed samples: by counters of time, else by flags that were up in two readings or more.
    """
    windows = _timed(index, launch)
    for device in sorted(_computed(launch)) if windows else ():
        own = _of(device, launch.sensed or Recording())
        counted = {part: grown(each, windows) for part, each in _parts(own, "throttle-time").items() if _is_heat(part)}
        ratios = {part: slow_s / passed_s for part, (slow_s, passed_s) in _known(counted).items()}
        if not counted:
            flags = {part: _within(each, windows) for part, each in _parts(own, "throttled").items() if _is_heat(part)}
            ratios = {part: float(up.mean()) for part, up in flags.items() if up.sum() >= LEAST_FLAGS}
        reason = max(ratios, key=lambda part: ratios[part], default="")
        if ratios.get(reason, 0.0) > HOT_RATIO:
            return f"{device} was slowed down for {ratios[reason]:.0%} of the time: {reason}"
    return None


def _is_heat(reason: str) -> bool:
    return any(word in reason for word in HEAT)


def _computed(launch: Launch) -> set[str]:
    facts, sensed = launch.heard.facts, launch.sensed
    return computing(facts.devices, sensed.found) if facts and sensed else set()


def _timed(index: int, launch: Launch) -> list[Window]:
    return [Window(each.began_ns, each.ended_ns) for each in launch.heard.timed_ns.get(index, [])]


def _windows(index: int, launch: Launch) -> list[Window]:
    """The timed samples, and what was executed once more for sensors of energy."""
    passes = [phase for phase in launch.heard.executed.get(index, []) if phase["own_pass"]]
    return [*_timed(index, launch), *(Window(*window_ns) for phase in passes for window_ns in phase["windows_ns"])]


def _state(own: Recording, windows: Sequence[Window]) -> dict[str, Any]:
    """Clocks, temperatures, slowing down, limits and errors of one device."""
    clocks = {part: extremes(series, windows) for part, series in _parts(own, "clock").items()}
    limits = [extremes(series, []).highest for series in _parts(own, "power-limit").values()]
    warm = {part: extremes(series, windows).highest for part, series in _parts(own, "temperature").items()}
    slowed = {part: extremes(series, windows).mean for part, series in _parts(own, "throttled").items()}
    return {
        "clock_mean_hz": _known({part: each.mean for part, each in clocks.items()}),
        "clock_lowest_hz": _known({part: each.lowest for part, each in clocks.items()}),
        "temperature_highest_c": _known(warm),
        "throttle_s": _growth(own, "throttle-time", windows),
        "throttled_ratio": _known(slowed),
        "power_limit_w": next((each for each in limits if each is not None), None),
        "errors": _growth(own, "errors", windows),
    }


def _memory(
    own: Recording, windows: Sequence[Window], loaded_ns: int | None, prefilled_ns: Sequence[int]
) -> dict[str, Any]:
    """Memory in use on one device before the worker began, once it had loaded, after prefills, and at most."""
    used = list(_parts(own, "memory-used").values())
    return {
        "memory_before_bytes": _most(_after(series, series.first_ns) for series in used),
        "memory_loaded_bytes": _most(_after(series, loaded_ns) for series in used) if loaded_ns else None,
        "memory_prefilled_bytes": _most(_after(series, at_ns) for series in used for at_ns in prefilled_ns),
        "memory_highest_bytes": _most(extremes(series, windows).highest for series in used),
    }


def _others(own: Recording, windows: Sequence[Window]) -> int | None:
    """Processes beside the worker's own; None where nobody is seen, not even that, as from within a container.

    Where as many are seen as before the worker began, it is not among them.
    """
    around = Window(min(each.begin_ns for each in windows), max(each.end_ns for each in windows))
    counts = [
        (round(seen), round(before))
        for series in _parts(own, "processes").values()
        if (seen := extremes(series, [_read_around(series, around)]).highest) and (before := series.first) is not None
    ]
    return max((seen if seen == before else seen - 1 for seen, before in counts), default=None)


def _read_around(series: Series, window: Window) -> Window:
    """From the last reading before `window` to the first after it: some sensors are read only at the ends of phases."""
    before_ns = series.at_ns[series.at_ns < window.begin_ns]
    after_ns = series.at_ns[series.at_ns > window.end_ns]
    return Window(
        int(before_ns[-1]) if len(before_ns) else window.begin_ns, int(after_ns[0]) if len(after_ns) else window.end_ns
    )


def _within(series: Series, windows: Sequence[Window]) -> Floats:
    """Sound readings in `windows`."""
    inside = [(series.at_ns >= each.begin_ns) & (series.at_ns <= each.end_ns) for each in windows]
    return np.asarray(series.values[np.any(inside, axis=0) & series.sound()])


def _growth(own: Recording, quantity: str, windows: Sequence[Window]) -> dict[str, float]:
    """By how much each counter grew from the reading before the windows to the one after them."""
    found = _known({part: grown(series, windows) for part, series in _parts(own, quantity).items()})
    return {part: amount for part, (amount, _) in found.items()}


def _after(series: Series, at_ns: int) -> float | None:
    """The first reading at or after a moment; None where none is near."""
    near = series.sound() & (series.at_ns >= at_ns) & (series.at_ns <= at_ns + SOON_NS)
    return float(series.values[np.argmax(near)]) if near.any() else None


def _parts(own: Recording, quantity: str) -> dict[str, Series]:
    return {part: series for (_, part), series in by_part(own, quantity).items()}


def _of(device: str, sensed: Recording) -> Recording:
    """What one device's sensors told."""
    return replace(sensed, series=[each for each in sensed.series if each.sensor.device == device])


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _known(found: Mapping[str, T | None]) -> dict[str, T]:
    return {part: value for part, value in found.items() if value is not None}
