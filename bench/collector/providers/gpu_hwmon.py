"""Energy, power, temperatures, clocks and throttling of graphics cards, from their kernel drivers' files in /sys.

No library and no privilege. Sources: Documentation/hwmon/sysfs-interface.rst (µJ, µW, m°C, Hz),
Documentation/gpu/amdgpu/thermal.rst (on an APU, power includes the processor),
Documentation/ABI/testing/sysfs-driver-intel-i915-hwmon and sysfs-driver-intel-xe-hwmon, and the notes at the head of
xe_gt_freq.c and xe_gt_throttle.c (MHz; 1 or 0 for each reason). The energy register behind i915 and xe has 32 bits and
the driver adds it up whenever its file is read: at 1000 W that must be every 4 minutes, and is every 0.2 s here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from bench.collector.providers.sysfs import number, text
from bench.collector.sensors import Denied, Found, Kind, Pace, Quantity, Sensor

MICRO, MILLI, MEGA, PERCENT = 1e-6, 1e-3, 1e6, 1e-2
SOUND: Mapping[Quantity, tuple[float, float]] = {
    "power": (0.1, 3e3),
    "power-limit": (1.0, 3e3),
    "temperature": (1.0, 150.0),
    "clock": (1e6, 1e10),
    "utilization": (0.0, 1.0),
    "throttled": (0.0, 1.0),
}
"""What a card that is awake can have. 0 W, 0 Hz and 0 °C are of one asleep, a limit of 0 is disabled."""
PACES: Mapping[Quantity, Pace] = {"energy": "power", "power": "power", "power-limit": "edges", "utilization": "edges"}
CARD = re.compile(r"card\d+")
PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
DOMAIN = re.compile(r"gt\d+|tile[1-9]\d*")
WHOLE, WITHIN = "card", "pkg"


@dataclass(frozen=True, kw_only=True)
class Driver:
    """What to read of a card with this kernel driver.

    `energy` and `temperatures` go by label ("" is a file without one), since indices differ between cards and kernels;
    xe has more temperatures, but each of its memory channels takes 0.1 s. `power` and `limit` are the first file that
    is there, each with its part. `clocks`, `reasons` and `others` are files below the card's folder. `uuid_of_place`:
    its runtimes name it by a UUID made of its identification and PCI address.
    """

    energy: Mapping[str, str] = field(default_factory=dict)
    temperatures: tuple[str, ...] = ()
    power: tuple[tuple[str, str], ...] = ()
    limit: tuple[tuple[str, str], ...] = ()
    clocks: tuple[tuple[str, float], ...] = ()
    reasons: str | None = None
    others: tuple[tuple[Quantity, str, str, float], ...] = ()
    uuid_of_place: bool = False


DRIVERS: Mapping[str, Driver] = {
    "amdgpu": Driver(
        temperatures=("edge", "junction", "mem"),
        power=(("power1_average", "chip"), ("power1_input", "chip")),
        limit=(("power1_cap", "chip"),),
        clocks=(("device/hwmon/hwmon*/freq1_input", 1.0),),
        others=(
            ("utilization", "busy", "device/gpu_busy_percent", PERCENT),
            ("memory-used", "vram", "device/mem_info_vram_used", 1.0),
        ),
    ),
    "i915": Driver(
        energy={"": WHOLE},
        limit=(("power1_max", WHOLE),),
        clocks=(("gt_act_freq_mhz", MEGA),),
        reasons="gt/gt*/throttle_reason_*",
        uuid_of_place=True,
    ),
    "xe": Driver(
        energy={WHOLE: WHOLE, WITHIN: WITHIN},
        temperatures=("pkg", "vram"),
        limit=(("power1_max", WHOLE), ("power1_cap", WHOLE), ("power2_max", WITHIN), ("power2_cap", WITHIN)),
        clocks=(("device/tile*/gt*/freq0/act_freq", MEGA),),
        reasons="device/tile*/gt*/freq0/throttle/reason_*",
        uuid_of_place=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """The file of a sensor and what one of its units is in the sensor's."""

    file: Path
    scale: float


class GpuHwmon:
    """Provider of every card that one of DRIVERS drives, as `pci:…`.

    A package that says more energy than the card around it makes both doubtful, and neither is shown (a B570 with
    kernel 6.16: Syllo/nvtop#409).
    """

    name: ClassVar[str] = "gpu-hwmon"

    def __init__(self, root: Path = Path("/sys")) -> None:
        self._folder = root / "class/drm"
        self._sources: dict[str, Source] = {}

    def probe(self) -> Found:
        """All that the drivers show of their cards; a card's connectors (`card0-DP-1`) are none."""
        try:
            return self._probed()
        except OSError as error:  # a card went away meanwhile
            return Found(denied=[Denied(what="sensors of graphics cards", why=str(error))])

    def _probed(self) -> Found:
        sensors, uuids = dict[str, Sensor](), dict[str, str]()
        for card in sorted(self._folder.glob("card[0-9]*")):
            address = (card / "device").resolve().name.lower()
            if CARD.fullmatch(card.name) and PCI.fullmatch(address):
                for sensor, source in _found(card, f"pci:{address}"):
                    sensors[sensor.id], self._sources[sensor.id] = sensor, source
                if uuid := _uuid(card, address):
                    uuids[f"pci:{address}"] = uuid
        doubtful = self._doubtful({each.id: self._value(each) for each in sensors.values() if each.kind == "counter"})
        devices = {sensors[each].device for each in doubtful}
        why = "the package says more than the card that it is in (as in Syllo/nvtop#409)"
        denied = [Denied(what=f"energy of {device}", why=why) for device in sorted(devices)]
        return Found(sensors=[each for each in sensors.values() if each.id not in doubtful], denied=denied, uuids=uuids)

    def read(self, sensors: Sequence[Sensor]) -> list[float | None]:
        """J, W, °C, Hz, bytes, shares of 1; None for what cannot be."""
        values = {sensor.id: self._value(sensor) for sensor in sensors}
        doubtful = self._doubtful(values)
        return [None if sensor.id in doubtful else values[sensor.id] for sensor in sensors]

    def close(self) -> None:
        """Nothing is held."""

    def _value(self, sensor: Sensor) -> float | None:
        source = self._sources.get(sensor.id)
        said = None if source is None else number(source.file)
        if source is None or said is None:
            return None
        value = said * source.scale
        least, most = SOUND.get(sensor.quantity, (0.0, sensor.most))
        return value if least <= value and (most is None or value <= most) else None

    @staticmethod
    def _doubtful(values: Mapping[str, float | None]) -> set[str]:
        """Ids of the energies of cards whose package says more than they."""
        found: set[str] = set()
        for card, card_j in values.items():
            device, _, part = card.partition("/energy/")
            package = f"{device}/energy/{WITHIN}"
            package_j = values.get(package)
            if part == WHOLE and card_j is not None and package_j is not None and package_j > card_j:
                found |= {card, package}
        return found


def _found(card: Path, device: str) -> Iterator[tuple[Sensor, Source]]:
    """Each sensor of a card.

    i915 has further hwmons, `i915_gt0` and on: parts of the card, left out.
    """
    hwmons, name = _hwmons(card), _driver(card)
    if name is None:
        return
    driver = DRIVERS[name]
    if hwmon := hwmons.get(name):
        for quantity, part, file, scale in _of_hwmon(hwmon, driver):
            yield _sensor(device, quantity, part, f"{name} {file.name}"), Source(file=file, scale=scale)
    for quantity, part, file, scale in _of_card(card, driver):
        shown = file.relative_to(card)
        most = _vram_bytes(card) if quantity == "memory-used" else None
        yield _sensor(device, quantity, part, f"{name} {shown}", most), Source(file=file, scale=scale)


def _hwmons(card: Path) -> dict[str | None, Path]:
    return {text(folder / "name"): folder for folder in sorted((card / "device/hwmon").glob("hwmon*"))}


def _driver(card: Path) -> str | None:
    """The one of DRIVERS, if any, by the name of its hwmon; integrated graphics have none, so by the driver's own."""
    names = (*_hwmons(card), (card / "device/driver").resolve().name)
    return next((name for name in names if name in DRIVERS), None)


def _uuid(card: Path, address: str) -> str | None:
    """The UUID by which Level Zero and OpenCL know the card, hexadecimal; those made from a serial number differ.

    Vendor, device, revision, PCI domain of two bytes each, lowest first; bus, device, function; zeros
    (Device::generateUuidFromPciBusInfo in intel/compute-runtime; seen of an A770: 8680a056080000000300000000000000).
    """
    name = _driver(card)
    if name is None or not DRIVERS[name].uuid_of_place:
        return None
    said = [text(card / "device" / file) for file in ("vendor", "device", "revision")]
    domain, bus, device, function = (int(part, 16) for part in re.split("[:.]", address))
    try:
        numbers = [*(int(each or "", 16) for each in said), domain]
        return (
            (b"".join(number.to_bytes(2, "little") for number in numbers) + bytes([bus, device, function]))
            .hex()
            .ljust(32, "0")
        )
    except (ValueError, OverflowError):
        return None


def _of_hwmon(hwmon: Path, driver: Driver) -> Iterator[tuple[Quantity, str, Path, float]]:
    for file in sorted(hwmon.glob("energy*_input")):
        if part := driver.energy.get(_label(file)):
            yield "energy", part, file, MICRO
    for file in sorted(hwmon.glob("temp*_input")):
        if (label := _label(file)) in driver.temperatures:
            yield "temperature", label, file, MILLI
    choices: tuple[tuple[Quantity, tuple[tuple[str, str], ...]], ...] = (
        ("power", driver.power),
        ("power-limit", driver.limit),
    )
    for quantity, files in choices:
        there = [(part, hwmon / name) for name, part in files if (hwmon / name).exists()]
        if there:
            part, file = next((each for each in there if number(each[1])), there[0])
            yield quantity, part, file, MICRO


def _of_card(card: Path, driver: Driver) -> Iterator[tuple[Quantity, str, Path, float]]:
    for pattern, scale in driver.clocks:
        for file in sorted(card.glob(pattern)):
            yield "clock", _domain(card, file) or "core", file, scale
    for file in sorted(card.glob(driver.reasons)) if driver.reasons else ():
        reason = file.name.rpartition("reason_")[2]
        if reason != "status":  # any of the others
            yield "throttled", f"{_domain(card, file)}-{reason}", file, 1.0
    for quantity, part, name, scale in driver.others:
        if (card / name).exists():
            yield quantity, part, card / name, scale


def _domain(card: Path, file: Path) -> str:
    """Which of a card's engines a file is of: `gt0`, `gt1`, `tile1-gt0`; empty where it is of all."""
    return "-".join(part for part in file.relative_to(card).parts if DOMAIN.fullmatch(part))


def _label(file: Path) -> str:
    return text(file.with_name(file.name.replace("_input", "_label"))) or ""


def _vram_bytes(card: Path) -> float | None:
    total = number(card / "device/mem_info_vram_total")
    return float(total) if total else None


def _sensor(device: str, quantity: Quantity, part: str, source: str, most: float | None = None) -> Sensor:
    kind: Kind = "counter" if quantity == "energy" else "gauge"
    return Sensor(
        device=device,
        quantity=quantity,
        part=part,
        kind=kind,
        source=source,
        pace=PACES.get(quantity, "state"),
        most=SOUND[quantity][1] if quantity in SOUND else most,
    )
