"""From what sensors told during a launch to the parts of a record that say it: energy, conditions, what watched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bench.collector.energy import Used, Window, extremes, grown, mean_power, used
from bench.collector.sampling import Recording
from bench.collector.sensors import Found
from bench.collector.series import Series
from bench.facts import SessionFacts
from bench.launch import Launch
from bench.results.metered import Collector, Condition, Denied, Energy, EnergyUse, Idle

LEAST_S, MOST_S = 5.0, 30.0
UPDATES, AVERAGES = 20, 5
"""A phase lasts so many updates of the slowest sensor of energy or power, or so many times what it averages over."""
LIMIT_MARGIN = 1.5
BUSY_CORES, STEAL_RATIO = 0.1, 0.01
"""More than this beside a case is said: it is not what the case can do."""
OF_A_PROCESSOR, OF_A_CARD = ("package", "dram"), ("card", "module", "chip", "pkg")
"""Parts that may be counted: of a processor all that begin so, of a card the first that is there."""

Key = tuple[str, str]
"""A device and a part of it."""


def least_s(found: Found) -> float | None:
    """How long a phase must last for the sensors of energy and power that are there; None where there are none."""
    metering = [sensor for sensor in found.sensors if sensor.quantity in ("energy", "power")]
    needed_s = [max(UPDATES * sensor.period_s, AVERAGES * sensor.averaging_s) for sensor in metering]
    return min(MOST_S, max(LEAST_S, *needed_s)) if needed_s else None


def hottest_c(recording: Recording) -> float | None:
    """The highest of all devices' last temperatures; None where none could be read."""
    series = [each for each in recording.series if each.sensor.quantity == "temperature" and each.known]
    return max((float(each.values[~np.isnan(each.values)][-1]) for each in series), default=None)


def energy(index: int, launch: Launch) -> Energy:
    """What the phases of one case used, by device and part; where nothing could be read, why."""
    recording = launch.sensed
    if recording is None or least_s(recording.found) is None:
        return Energy(reason=_without(recording))
    counters, gauges = _by_part(recording, "energy"), _by_part(recording, "power")
    limits = {key[0]: extremes(series, []).highest for key, series in _by_part(recording, "power-limit").items()}
    counted = set(_counted([*counters, *gauges], launch.heard.facts, recording.found))
    idle = {(each.device, each.part): each for each in _idle(launch.idle)}
    uses = []
    for executed in launch.heard.executed.get(index, []):
        windows = [Window(*each) for each in executed["windows_ns"]]
        for key in dict.fromkeys([*counters, *gauges]):
            limit_w = limits.get(key[0])
            found = used(
                counters.get(key), gauges.get(key), windows, most_w=limit_w * LIMIT_MARGIN if limit_w else None
            )
            seconds = sum(window.seconds for window in windows)
            base_w = idle[key].mean_w if key in idle else None
            uses.append(
                EnergyUse(
                    device=key[0],
                    part=key[1],
                    phase=executed["phase"],
                    counted=key in counted,
                    net_j=None if found.joules is None or base_w is None else found.joules - base_w * seconds,
                    tokens=executed["tokens"],
                    seconds=seconds,
                    windows=len(windows),
                    own_pass=executed["own_pass"],
                    **_plain(found),
                )
            )
    return Energy(reason=_why_none(uses), uses=uses, idle=list(idle.values()))


def conditions(index: int, launch: Launch) -> list[Condition]:
    """What the host and each device went through in the windows of one case; who told nothing is left out."""
    executed = launch.heard.executed.get(index, [])
    windows = [Window(*each) for phase in executed for each in phase["windows_ns"]]
    series = launch.sensed.series if launch.sensed and windows else []
    devices = dict.fromkeys(each.sensor.device for each in series)
    host = Condition(device="host", **asdict(launch.contention.of(index)))
    found = [host, *(_condition(device, series, windows) for device in devices)]
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
    return said


def collector(launch: Launch) -> Collector | None:
    """What watched this launch, what it may not read, and what it cost; None where nothing was looked for."""
    if launch.sensed is None:
        return None
    found, cost = launch.sensed.found, launch.sensed.cost or {}
    return Collector(
        sensors=[f"{sensor.id}: {sensor.source}" for sensor in found.sensors],
        denied=[Denied(**asdict(denied)) for denied in found.denied],
        names=dict(found.names),
        settings={device: dict(told) for device, told in found.settings.items()},
        cpu_s=cost.get("cpu_s"),
        wall_s=cost.get("wall_s"),
    )


def device_settings(launch: Launch) -> dict[str, Any]:
    """Driver, firmware and power limit of the device that computed, as a record's covariates; empty where not told."""
    if launch.sensed is None or launch.heard.facts is None:
        return {}
    found = launch.sensed.found
    told = [found.settings[device] for device in _computing(launch.heard.facts, found) if device in found.settings]
    names = {"driver": "driver", "firmware": "vbios", "power_cap_w": "power_limit_w"}
    return {name: told[0].get(key) for name, key in names.items()} if len(told) == 1 else {}


def _without(recording: Recording | None) -> str:
    """Why there is no sensor of energy or power."""
    if recording is None:
        return "no sensor was looked for"
    whys = dict.fromkeys(f"{denied.what}: {denied.why}" for denied in recording.found.denied)
    return "no sensor of energy or power" + (f" ({'; '.join(whys)})" if whys else "")


def _why_none(uses: Sequence[EnergyUse]) -> str | None:
    """Why nothing that is counted has a number; None where something has."""
    counted = [use for use in uses if use.counted]
    if any(use.joules is not None for use in counted):
        return None
    if not counted:
        return "no sensor belongs to a device that computed" if uses else "no phase was executed"
    return "; ".join(dict.fromkeys(f"{use.device} {use.part}: {use.reason}" for use in counted))


def _by_part(recording: Recording, quantity: str) -> dict[Key, Series]:
    """Series of one quantity; of several that measure the same, the first that has a reading."""
    found: dict[Key, Series] = {}
    for series in recording.series:
        key = (series.sensor.device, series.sensor.part)
        if series.sensor.quantity == quantity and (key not in found or not found[key].known) and series.known:
            found[key] = series
    return found


def _counted(keys: Sequence[Key], facts: SessionFacts | None, found: Found) -> Iterator[Key]:
    """Parts of the devices that computed which overlap no other that is counted."""
    devices = {device for device, _ in keys}
    for device in _computing(facts, found) & devices:
        parts = [part for each, part in keys if each == device]
        on_processor = [part for part in parts if part.startswith(OF_A_PROCESSOR)]
        on_card = [part for part in OF_A_CARD if part in parts][:1]
        yield from ((device, part) for part in on_processor or on_card)


def _computing(facts: SessionFacts | None, found: Found) -> set[str]:
    """The sensors' names of the devices that a session computed on: by uuid, else by a name that only one has."""
    matched: set[str] = set()
    for device in facts.devices if facts else ():
        if device.kind == "cpu":
            matched |= {sensor.device for sensor in found.sensors if sensor.device.startswith("cpu:")}
            continue
        if device.uuid:
            matched |= {name for name, uuid in found.uuids.items() if _bare(uuid) == _bare(device.uuid)}
            continue
        alike = [each for each, name in found.names.items() if name == device.name]
        matched |= set(alike) if len(alike) == 1 else set()
    return matched


def _bare(uuid: str) -> str:
    return uuid.lower().removeprefix("gpu-")


def _idle(recording: Recording | None) -> list[Idle]:
    """Power before anything was loaded, over all that was recorded."""
    if recording is None:
        return []
    counters, gauges = _by_part(recording, "energy"), _by_part(recording, "power")
    found = []
    for device, part in dict.fromkeys([*counters, *gauges]):
        counter, gauge = counters.get((device, part)), gauges.get((device, part))
        ends = [series for series in (counter, gauge) if series is not None]
        window = Window(max(s.first_ns for s in ends), min(s.last_ns for s in ends))
        found.append(Idle(device=device, part=part, **asdict(mean_power(counter, gauge, window))))
    return found


def _condition(device: str, all_series: Sequence[Series], windows: Sequence[Window]) -> Condition:
    own = [series for series in all_series if series.sensor.device == device]

    def of(quantity: str) -> dict[str, Series]:
        return {series.sensor.part: series for series in own if series.sensor.quantity == quantity}

    def known(found: Mapping[str, float | None]) -> dict[str, float]:
        return {part: value for part, value in found.items() if value is not None}

    clocks = {part: extremes(series, windows) for part, series in of("clock").items()}
    memory = [extremes(series, windows).highest for series in of("memory-used").values()]
    limits = [extremes(series, []).highest for series in of("power-limit").values()]
    return Condition(
        device=device,
        clock_mean_hz=known({part: each.mean for part, each in clocks.items()}),
        clock_lowest_hz=known({part: each.lowest for part, each in clocks.items()}),
        temperature_highest_c=known({part: extremes(s, windows).highest for part, s in of("temperature").items()}),
        throttle_s=known({part: grown(series, windows) for part, series in of("throttle-time").items()}),
        throttled_ratio=known({part: extremes(series, windows).mean for part, series in of("throttled").items()}),
        memory_highest_bytes=max((each for each in memory if each is not None), default=None),
        power_limit_w=next((each for each in limits if each is not None), None),
    )


def _plain(found: Used) -> dict[str, Any]:
    return {**asdict(found), "flags": list(found.flags)}
