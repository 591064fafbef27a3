"""Energy counters of processors and their memory, as the kernel's powercap class shows them (RAPL; Intel's and AMD's).

Documentation/ABI/testing/sysfs-class-powercap and Documentation/power/powercap/powercap.rst: µJ, and the range after
which a counter begins anew (some 65 or 262 kJ: a minute or more at full load). Packages and dram may be added up. core
and uncore are left out: they lie within their package. psys is around the packages and is a device of its own. What
`intel-rapl-mmio` shows is the package once more, so it is left out too.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from bench.collector.providers.sysfs import number, text
from bench.collector.sensors import Denied, Found, Sensor

J_PER_UJ = 1e-6
WHAT = "energy of processors"
PACKAGE = re.compile(r"package-(\d+)(-die-\d+)?")
PLATFORM = re.compile(r"psys(-\d+)?")
RULE = 'SUBSYSTEM=="powercap", KERNEL=="intel-rapl:*", RUN+="/bin/chmod a+r /sys%p/energy_uj"'
REMEDY = (
    "`sudo chmod a+r /sys/class/powercap/*/energy_uj` until the next boot; "
    f"for good: `echo '{RULE}' | sudo tee /etc/udev/rules.d/70-powercap.rules`"
)


class Powercap:
    """Provider of the energy of packages and their memory (`cpu:N`) and of the whole platform (`platform`).

    A processor of several dies keeps them apart: `package-die-1`, `dram-die-1`.
    """

    name: ClassVar[str] = "powercap"

    def __init__(self, root: Path = Path("/sys"), cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
        self._folder = root / "class/powercap"
        self._cpuinfo = cpuinfo
        self._files: dict[str, Path] = {}

    def probe(self) -> Found:
        """Every zone's counter; where there is none, or none that may be read, why."""
        try:
            return self._probed()
        except OSError as error:  # a module was unloaded meanwhile
            return Found(denied=[Denied(what=WHAT, why=str(error))])

    def _probed(self) -> Found:
        zones = sorted(self._folder.glob("intel-rapl:*"))
        if not zones:
            return Found(denied=[_absent(self._cpuinfo)])
        if all(text(zone / "name") is None for zone in zones):
            return Found(denied=[_hidden()])
        sensors: dict[str, Sensor] = {}
        denied: list[Denied] = []
        roots: list[str] = []
        for zone, device, part in _measured(zones):
            file = zone / "energy_uj"
            if number(file) is not None:
                sensor = _sensor(zone, device, part)
                if sensor.id not in self._files:
                    sensors[sensor.id], self._files[sensor.id] = sensor, file
            elif _is_roots(file):
                roots.append(f"{device} {part}")
            else:
                said = text(file)
                why = "energy_uj cannot be read" if said is None else f"energy_uj says {said!r}, which is no energy"
                denied.append(Denied(what=f"energy of {device} {part}", why=f"{zone.name}: {why}"))
        if roots:
            why = "only root may read energy_uj since CVE-2020-8694"
            denied.insert(0, Denied(what=f"energy of {', '.join(roots)}", why=why, remedy=REMEDY))
        if not sensors and not denied:
            denied.append(Denied(what=WHAT, why="no powercap zone is of a package, its memory or the platform"))
        return Found(sensors=list(sensors.values()), denied=denied)

    def read(self, sensors: Sequence[Sensor]) -> list[float | None]:
        """J since some moment before the machine was last started, modulo `wraps_at`."""
        return [self._energy_j(sensor) for sensor in sensors]

    def close(self) -> None:
        """Nothing is held."""

    def _energy_j(self, sensor: Sensor) -> float | None:
        file = self._files.get(sensor.id)
        said = None if file is None else number(file)
        if said is None:
            return None
        energy_j = said * J_PER_UJ
        return energy_j if sensor.wraps_at is None or energy_j <= sensor.wraps_at else None


def _measured(zones: Sequence[Path]) -> Iterator[tuple[Path, str, str]]:
    """(zone, device, part) of those that are packages, a package's memory, or the platform.

    The package's number is in the name, not in the zone's: `intel-rapl:1` may be the platform.
    """
    for zone in zones:
        name = text(zone / "name") or ""
        if platform := PLATFORM.fullmatch(name):
            yield zone, "platform", platform.group()
        elif package := PACKAGE.fullmatch(name):
            yield zone, f"cpu:{package[1]}", f"package{package[2] or ''}"
        elif name == "dram":
            package = PACKAGE.fullmatch(text(zone.with_name(zone.name.rpartition(":")[0]) / "name") or "")
            if package:
                yield zone, f"cpu:{package[1]}", f"dram{package[2] or ''}"


def _sensor(zone: Path, device: str, part: str) -> Sensor:
    range_uj = number(zone / "max_energy_range_uj")
    return Sensor(
        device=device,
        quantity="energy",
        part=part,
        kind="counter",
        source=f"powercap {zone.name}/energy_uj",
        wraps_at=range_uj * J_PER_UJ if range_uj else None,
    )


def _is_roots(file: Path) -> bool:
    """Whether it is there, but not for everybody."""
    try:
        return not file.stat().st_mode & stat.S_IROTH
    except OSError:
        return False


def _absent(cpuinfo: Path) -> Denied:
    """Why the kernel shows no zone at all: x86 processors have a line `flags`, and `hypervisor` in it within a VM."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    if flags is None:
        return Denied(what=WHAT, why="the kernel shows no powercap zones for this processor")
    if "hypervisor" in flags:
        return Denied(what=WHAT, why="no powercap zones: virtual machines show none")
    return Denied(
        what=WHAT, why="no powercap zones: the kernel's driver is not loaded", remedy="sudo modprobe intel_rapl_msr"
    )


def _hidden() -> Denied:
    """Zones by name only: Docker and Podman mask the folder that they link to (moby GHSA-jq35-85cj-fj4p)."""
    return Denied(
        what=WHAT,
        why="the zones are listed but empty: containers hide /sys/devices/virtual/powercap",
        remedy="`docker run --security-opt systempaths=unconfined …`, or `podman run --security-opt unmask=ALL …`",
    )
