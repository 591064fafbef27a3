"""From what sensors told during a launch to the parts of a record that say it: energy, and what watched."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence, Set
from dataclasses import asdict
from typing import Any

from bench.collector.energy import LEAST_UPDATES, Used, Window, extremes, mean_power, used
from bench.collector.sampling import Recording
from bench.collector.sensors import Found, Sensor
from bench.collector.series import Series
from bench.launch import Launch
from bench.results.metered import Collector, Denied, Energy, EnergyUse, Idle
from bench.types import Device

LEAST_S, MOST_S = 5.0, 30.0
UPDATES, AVERAGES = 20, 5
"""A phase lasts so many updates of the slowest sensor of energy or power, or so many times what it averages over."""
LIMIT_MARGIN = 1.5
DOUBTFUL_RATIO = 0.1
"""Joules that may be off by more are said to be doubtful."""
WALL = "wall"
OF_A_PROCESSOR, OF_A_CARD = ("package", "dram"), ("card", "module", "chip", "pkg")
"""Parts that may be counted: of a processor all that begin so, of a card the first that is there."""

Key = tuple[str, str]
"""A device and a part of it."""


def least_s(found: Found) -> float | None:
    """How long a phase must last for the sensors of energy and power that are there; None where there are none.

    Those that are too slow for the longest pass ask for none: they tell only of phases that last long by themselves.
    """
    quick = [sensor for sensor in _metering(found) if not _too_slow(sensor)]
    needed_s = [max(UPDATES * sensor.period_s, AVERAGES * sensor.averaging_s) for sensor in quick]
    return min(MOST_S, max(LEAST_S, *needed_s)) if needed_s else None


def energy(index: int, launch: Launch) -> Energy:
    """What the phases of one case used, by device and part; where nothing could be read, why."""
    recording = launch.sensed
    if recording is None or not _metering(recording.found):
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
                    **_plain(found, _slowness(key, recording.found)),
                )
            )
    return Energy(reason=_why_none(uses), uses=uses, idle=list(idle.values()))


def doubts(energy: Energy) -> list[str]:
    """What makes joules doubtful that a table shows, for people: those that are counted, and a meter's.

    That updates were few (`coarse`) is not said apart: it makes them uncertain by more than a tenth.
    """
    said = []
    for use in energy.uses:
        if use.joules is None or not (use.counted or use.part == WALL):
            continue
        whys = [flag.replace("-", " ") for flag in use.flags if flag != "coarse"]
        if use.uncertainty_j is not None and round(use.uncertainty_j / use.joules, 2) > DOUBTFUL_RATIO:
            whys.insert(0, f"uncertain by {use.uncertainty_j / use.joules:.0%}")
        if whys:
            said.append(f"energy of {use.device} {use.part} in {use.phase}: {', '.join(whys)}")
    return said


def used_by_part(recording: Recording, windows: Sequence[Window]) -> dict[Key, Used]:
    """Energy of `windows` together by every part that a sensor tells of, within its device's power limit.

    Parts overlap: only those that `counted` names may be added up.
    """
    counters, gauges = by_part(recording, "energy"), by_part(recording, "power")
    limits = _limits_w(recording)
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
    """Driver, firmware and power limit of the device that computed, as a record's covariates; empty where not told.

    The limit is what the device's provider told when it was looked for, else what a sensor of limits read.
    """
    if launch.sensed is None or launch.heard.facts is None:
        return {}
    found = launch.sensed.found
    computed = computing(launch.heard.facts.devices, found)
    told = [found.settings[device] for device in computed if device in found.settings]
    names = {"driver": "driver", "firmware": "vbios", "power_cap_w": "power_limit_w"}
    settings = {name: told[0].get(key) for name, key in names.items()} if len(told) == 1 else {}
    limits_w = [limit_w for device, limit_w in _limits_w(launch.sensed).items() if device in computed]
    if settings.get("power_cap_w") is None and len(limits_w) == 1:
        settings["power_cap_w"] = limits_w[0]
    return settings


def by_part(recording: Recording, quantity: str) -> dict[Key, Series]:
    """Series of one quantity by device and part; of several that measure the same, the first that has a reading.

    What could never be read is left out.
    """
    found: dict[Key, Series] = {}
    for series in recording.series:
        key = (series.sensor.device, series.sensor.part)
        if series.sensor.quantity == quantity and series.known:
            found.setdefault(key, series)
    return found


def _metering(found: Found) -> list[Sensor]:
    return [sensor for sensor in found.sensors if sensor.quantity in ("energy", "power")]


def _too_slow(sensor: Sensor) -> bool:
    """Whether even the longest pass holds too few of its updates."""
    return max(LEAST_UPDATES * sensor.period_s, AVERAGES * sensor.averaging_s) > MOST_S


def _slowness(key: Key, found: Found) -> str | None:
    """What to say of a part of which all sensors are too slow; None of the others."""
    of_part = [sensor for sensor in _metering(found) if (sensor.device, sensor.part) == key]
    if not all(map(_too_slow, of_part)):
        return None
    pace_s = min(max(sensor.period_s, sensor.averaging_s) for sensor in of_part)
    return f"its sensor is too slow: one reading in {pace_s:.3g} s"


def _limits_w(recording: Recording) -> dict[str, float]:
    """The highest power limit that was read of each device."""
    limits_w: dict[str, float] = {}
    for (device, _), series in by_part(recording, "power-limit").items():
        if highest_w := extremes(series, []).highest:
            limits_w[device] = max(highest_w, limits_w.get(device, 0.0))
    return limits_w


def _without(recording: Recording | None) -> str:
    """Why there is no sensor of energy or power."""
    if recording is None:
        return "no sensor was looked for"
    why = recording.found.without_energy
    return "no sensor of energy or power" + (f" ({why})" if why else "")


def _why_none(uses: Sequence[EnergyUse]) -> str | None:
    """Why nothing that is counted has a number; None where something has."""
    counted = [use for use in uses if use.counted]
    if any(use.joules is not None for use in counted):
        return None
    if not counted:
        return "no sensor belongs to a device that computed" if uses else "no phase was executed"
    return "; ".join(dict.fromkeys(f"{use.device} {use.part}: {use.reason}" for use in counted))


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
    counters, gauges = by_part(recording, "energy"), by_part(recording, "power")
    found = []
    for device, part in dict.fromkeys([*counters, *gauges]):
        counter, gauge = counters.get((device, part)), gauges.get((device, part))
        ends = [series for series in (counter, gauge) if series is not None]
        window = Window(max(s.first_ns for s in ends), min(s.last_ns for s in ends))
        found.append(Idle(device=device, part=part, **asdict(mean_power(counter, gauge, window))))
    return found


def _plain(found: Used, slowness: str | None) -> dict[str, Any]:
    """Its fields; why there is no number, with what to say of slow sensors."""
    reason = found.reason if found.joules is not None or slowness is None else f"{found.reason}; {slowness}"
    return {**asdict(found), "flags": list(found.flags), "reason": reason}
