"""From what sensors told during a launch to the parts of a record that say it: energy, and what watched."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence, Set
from dataclasses import asdict
from typing import Any

import numpy as np

from bench.collector.energy import Used, Window, extremes, mean_power, used
from bench.collector.sampling import Recording
from bench.collector.sensors import Found
from bench.collector.series import Series
from bench.launch import Launch
from bench.results.metered import Collector, Denied, Energy, EnergyUse, Idle
from bench.types import Device

LEAST_S, MOST_S = 5.0, 30.0
UPDATES, AVERAGES = 20, 5
"""A phase lasts so many updates of the slowest sensor of energy or power, or so many times what it averages over."""
LIMIT_MARGIN = 1.5
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
    facts = launch.heard.facts
    computed = computing(facts.devices if facts else (), recording.found)
    idle = {(each.device, each.part): each for each in _idle(launch.idle)}
    uses = []
    for executed in launch.heard.executed.get(index, []):
        windows = [Window(*each) for each in executed["windows_ns"]]
        seconds = sum(window.seconds for window in windows)
        parts = used_by_part(recording, windows)
        keys = set(counted(parts, computed))
        for key, found in parts.items():
            base_w = idle[key].mean_w if key in idle else None
            uses.append(
                EnergyUse(
                    device=key[0],
                    part=key[1],
                    phase=executed["phase"],
                    counted=key in keys,
                    net_j=None if found.joules is None or base_w is None else found.joules - base_w * seconds,
                    tokens=executed["tokens"],
                    seconds=seconds,
                    windows=len(windows),
                    own_pass=executed["own_pass"],
                    **_plain(found),
                )
            )
    return Energy(reason=_why_none(uses), uses=uses, idle=list(idle.values()))


def used_by_part(recording: Recording, windows: Sequence[Window]) -> dict[Key, Used]:
    """Energy of `windows` together by every part that a sensor tells of, within its device's power limit.

    Parts overlap: only those that `counted` names may be added up.
    """
    counters, gauges = _by_part(recording, "energy"), _by_part(recording, "power")
    limits = {key[0]: extremes(series, []).highest for key, series in _by_part(recording, "power-limit").items()}
    found = {}
    for key in dict.fromkeys([*counters, *gauges]):
        limit_w = limits.get(key[0])
        most_w = limit_w * LIMIT_MARGIN if limit_w else None
        found[key] = used(counters.get(key), gauges.get(key), windows, most_w=most_w)
    return found


def counted(keys: Collection[Key], devices: Set[str]) -> Iterator[Key]:
    """Those of `keys` that are of `devices`, as sensors name them, and overlap no other that is counted."""
    for device in dict.fromkeys(device for device, _ in keys if device in devices):
        parts = [part for each, part in keys if each == device]
        on_processor = [part for part in parts if part.startswith(OF_A_PROCESSOR)]
        on_card = [part for part in OF_A_CARD if part in parts][:1]
        yield from ((device, part) for part in on_processor or on_card)


def computing(devices: Sequence[Device], found: Found) -> set[str]:
    """The sensors' names of `devices`, which are as runtimes name them."""
    present = {sensor.device for sensor in found.sensors}
    return {name for device in devices for name in _of_device(device, present, found)}


def collector(launch: Launch) -> Collector | None:
    """What watched this launch, what it may not read, and what it cost; None where nothing was looked for."""
    if launch.sensed is None:
        return None
    found, cost = launch.sensed.found, launch.sensed.cost or {}
    return Collector(
        sensors=[f"{sensor.id}: {sensor.source}" for sensor in found.sensors],
        denied=[Denied(what=each.what, why=each.why, remedy=each.remedy) for each in found.denied],
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
    computed = computing(launch.heard.facts.devices, found)
    told = [found.settings[device] for device in computed if device in found.settings]
    names = {"driver": "driver", "firmware": "vbios", "power_cap_w": "power_limit_w"}
    return {name: told[0].get(key) for name, key in names.items()} if len(told) == 1 else {}


def _without(recording: Recording | None) -> str:
    """Why there is no sensor of energy or power."""
    if recording is None:
        return "no sensor was looked for"
    whys = dict.fromkeys(f"{denied.what}: {denied.why}" for denied in recording.found.denied if denied.of_energy)
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


def _of_device(device: Device, present: Set[str], found: Found) -> Set[str]:
    """Of a processor all packages; of a card by PCI address, else by uuid, else by a name that only one has."""
    if device.kind == "cpu":
        return {name for name in present if name.startswith("cpu:")}
    if at := present & {f"pci:{device.pci}"}:
        return at
    if device.uuid:
        return {name for name, uuid in found.uuids.items() if _bare(uuid) == _bare(device.uuid)}
    alike = {each for each, name in found.names.items() if name == device.name}
    return alike if len(alike) == 1 else set()


def _bare(uuid: str) -> str:
    """Without what libraries write around it."""
    return uuid.lower().removeprefix("gpu-").replace("-", "")


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


def _plain(found: Used) -> dict[str, Any]:
    return {**asdict(found), "flags": list(found.flags)}
