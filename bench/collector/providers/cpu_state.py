"""Clocks, temperatures and throttling of processors, from cpufreq, hwmon and thermal_throttle in /sys.

Sources: Documentation/admin-guide/pm/cpufreq.rst (kHz), Documentation/hwmon/coretemp.rst and k10temp.rst (m°C),
Documentation/admin-guide/thermal/intel_thermal_throttle.rst (ms; every processor of a package counts the package's).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import ClassVar

from bench.collector.providers.sysfs import number, text
from bench.collector.sensors import Denied, Found, Sensor

HZ_PER_KHZ, C_PER_MC, S_PER_MS = 1e3, 1e-3, 1e-3
CLOCK_HZ = (1e6, 1e10)
TEMPERATURE_C = (1.0, 150.0)
"""What a processor that runs can have: less is another unit or an empty register, more is neither."""
CORETEMP_LABEL = re.compile(r"(?:Package|Physical) id (\d+)")
K10TEMP_LABELS = ("Tctl", "Tdie")
"""Tctl is what cooling goes by and may lie above the die's temperature, which is Tdie (k10temp.rst)."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The files of a sensor, and how their numbers become one: scaled, those out of range dropped, then folded."""

    files: tuple[Path, ...]
    scale: float
    fold: Callable[[Iterable[float]], float]
    least: float = 0.0
    most: float = float("inf")


class CpuState:
    """Provider of the state of `cpu:N`.

    Clocks are over all of a package's logical processors, idle ones too, as the kernel last knew them. Each of these
    counts its package's throttling by itself: the highest count is the package's.
    """

    name: ClassVar[str] = "cpu-state"

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root / "sys"
        self._sources: dict[str, Source] = {}

    def probe(self) -> Found:
        """What this kernel shows; a virtual machine shows nothing of it."""
        try:
            return self._probed()
        except OSError as error:  # a driver went away meanwhile
            return Found(denied=[Denied(what="state of processors", why=str(error))])

    def _probed(self) -> Found:
        packages = _packages(self._root / "devices/system/cpu")
        found = [*_clocks(packages), *_throttling(packages), *_temperatures(self._root / "class/hwmon", packages)]
        self._sources = {sensor.id: source for sensor, source in found}
        sensors = list({sensor.id: sensor for sensor, _ in found}.values())
        shown = any(sensor.quantity == "clock" for sensor in sensors)
        return Found(
            sensors=sensors,
            denied=[] if shown else [Denied(what="clocks", why="not shown by this kernel", of_energy=False)],
        )

    def read(self, sensors: Sequence[Sensor]) -> list[float | None]:
        """Hz, °C, s; a processor that went offline is left out, None where all did."""
        said: dict[tuple[Path, ...], list[int]] = {}
        return [self._value(sensor, said) for sensor in sensors]

    def close(self) -> None:
        """Nothing is held."""

    def _value(self, sensor: Sensor, said: dict[tuple[Path, ...], list[int]]) -> float | None:
        source = self._sources.get(sensor.id)
        if source is None:
            return None
        if source.files not in said:  # mean and lowest clock are of the same moment
            said[source.files] = [each for file in source.files if (each := number(file)) is not None]
        values = [each * source.scale for each in said[source.files]]
        sound = [value for value in values if source.least <= value <= source.most]
        return source.fold(sound) if sound else None


def _packages(folder: Path) -> dict[int, list[Path]]:
    """Folders of the logical processors of each package; of package 0 where the kernel does not say."""
    packages: dict[int, list[Path]] = {}
    for cpu in sorted(folder.glob("cpu[0-9]*")):
        packages.setdefault(number(cpu / "topology/physical_package_id") or 0, []).append(cpu)
    return packages


def _clocks(packages: Mapping[int, Sequence[Path]]) -> Iterator[tuple[Sensor, Source]]:
    least, most = CLOCK_HZ
    for package, files in _files(packages, "cpufreq/scaling_cur_freq"):
        folds: tuple[tuple[str, Callable[[Iterable[float]], float]], ...] = (("mean", fmean), ("lowest", min))
        for part, fold in folds:
            sensor = Sensor(
                device=f"cpu:{package}",
                quantity="clock",
                part=f"core-{part}",
                kind="gauge",
                source="cpufreq scaling_cur_freq",
                pace="state",
                most=most,
            )
            yield sensor, Source(files=files, scale=HZ_PER_KHZ, fold=fold, least=least, most=most)


def _throttling(packages: Mapping[int, Sequence[Path]]) -> Iterator[tuple[Sensor, Source]]:
    for package, files in _files(packages, "thermal_throttle/package_throttle_total_time_ms"):
        sensor = Sensor(
            device=f"cpu:{package}",
            quantity="throttle-time",
            part="thermal",
            kind="counter",
            source="thermal_throttle package_throttle_total_time_ms",
            pace="edges",
        )
        yield sensor, Source(files=files, scale=S_PER_MS, fold=max)


def _files(packages: Mapping[int, Sequence[Path]], name: str) -> Iterator[tuple[int, tuple[Path, ...]]]:
    for package, cpus in packages.items():
        if files := tuple(file for cpu in cpus if (file := cpu / name).exists()):
            yield package, files


def _temperatures(folder: Path, packages: Mapping[int, Sequence[Path]]) -> Iterator[tuple[Sensor, Source]]:
    """coretemp names the package; k10temp is one for each processor (or die), in the order of its PCI function.

    Where there are more of them than packages nothing tells whose they are, and none is shown.
    """
    k10temps = []
    for hwmon in sorted(folder.glob("hwmon*")):
        driver = text(hwmon / "name")
        if driver == "k10temp":
            k10temps.append(hwmon)
        elif driver == "coretemp":
            for label, file in _labelled(hwmon):
                if named := CORETEMP_LABEL.fullmatch(label):
                    yield _temperature(int(named[1]), "package", file, driver)
    if len(k10temps) == max(1, len(packages)):
        k10temps.sort(key=lambda hwmon: (hwmon / "device").resolve().name)
        for package, hwmon in zip(sorted(packages) or [0], k10temps, strict=True):
            for label, file in _labelled(hwmon):
                if label in K10TEMP_LABELS:
                    yield _temperature(package, label.lower(), file, "k10temp")


def _labelled(hwmon: Path) -> Iterator[tuple[str, Path]]:
    for file in sorted(hwmon.glob("temp*_label")):
        yield text(file) or "", file.with_name(file.name.replace("_label", "_input"))


def _temperature(package: int, part: str, file: Path, driver: str) -> tuple[Sensor, Source]:
    least, most = TEMPERATURE_C
    sensor = Sensor(
        device=f"cpu:{package}",
        quantity="temperature",
        part=part,
        kind="gauge",
        source=f"hwmon {driver} {file.name}",
        pace="state",
        most=most,
    )
    return sensor, Source(files=(file,), scale=C_PER_MC, fold=max, least=least, most=most)
