"""Mean power of a device over a stretch of work, by the meter that its machine has; what weight_distribution reads."""

from __future__ import annotations

import atexit
import math
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Protocol

import torch

from backends.pytorch.kinds import CPU, Kind

POWERCAP = Path("/sys/class/powercap")
SMI = "nvidia-smi"
PERIOD_S = 0.1
SHORT_S, LONG_S = 0.2, 1.0
"""How long a reading still holds what was before: one that is of a moment, and one that is the mean of a second."""
MOST_W = 3000.0
"""More than one device takes; and in mW less than it takes."""


class Meter(Protocol):
    """`begin`, then the work, then `mean_w`: of the time between, None where nothing was read."""

    described: str

    def begin(self) -> None: ...
    def mean_w(self) -> float | None: ...


class Absent:
    """No meter, and why."""

    def __init__(self, why: str):
        self.described = f"not measured: {why}"

    def begin(self) -> None:
        pass

    def mean_w(self) -> float | None:
        return None


class Counters:
    """Differences of counters of energy in µJ, each of which begins anew at a number of its own."""

    def __init__(self, described: str, zones: list[Path]):
        self.described = described
        self._counters = [(zone / "energy_uj", _whole(zone / "max_energy_range_uj")) for zone in zones]

    def begin(self) -> None:
        self._began_s, self._began_uj = time.perf_counter(), [_whole(path) for path, _ in self._counters]

    def mean_w(self) -> float | None:
        elapsed_s, counters = time.perf_counter() - self._began_s, zip(self._counters, self._began_uj, strict=True)
        return sum((_whole(path) - began_uj) % most_uj for (path, most_uj), began_uj in counters) * 1e-6 / elapsed_s


class Samples:
    """Readings that a thread takes all the time; those of a stretch's first `lag_s` do not count."""

    def __init__(self, described: str, said_w: Iterable[float], lag_s: float):
        self.described, self._said_w, self._lag_s = described, said_w, lag_s
        self._taken: list[tuple[float, float]] = []
        self._from_s = math.inf
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for power_w in self._said_w:
            self._taken.append((time.perf_counter(), power_w))

    def begin(self) -> None:
        self._from_s = time.perf_counter() + self._lag_s

    def mean_w(self) -> float | None:
        taken_w = [power_w for at_s, power_w in self._taken if at_s >= self._from_s]
        return fmean(taken_w) if taken_w else None


def meter_of(kind: Kind, device: torch.device) -> Meter:
    """Of several meters the first that answers; never one that answers for something else."""
    if kind is CPU:
        return _powercap(POWERCAP)
    if kind.name == "cuda" and shutil.which(SMI) and (found := _smi(device)):
        return found
    tell = getattr(getattr(torch, kind.word), "power_draw", None)
    if tell is None:
        return Absent(f"torch {torch.__version__} has no torch.{kind.word}.power_draw, and no other meter is known")
    return _told_by_torch(kind, device, tell)


def _powercap(root: Path) -> Meter:
    """Packages of the processor: what lies within one has two colons, and `psys` holds them all once more."""
    zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if zone.name.count(":") == 1]
    try:
        packages = [zone for zone in zones if (zone / "name").read_text().startswith("package")]
        if not packages:
            return Absent(f"the system shows no {root}/intel-rapl:*")
        if locked := [zone for zone in packages if not os.access(zone / "energy_uj", os.R_OK)]:
            return Absent(f"{locked[0]}/energy_uj is not to be read by this user")
        return Counters(f"energy counters of {len(packages)} package{'s' * (len(packages) > 1)}", packages)
    except OSError as error:
        return Absent(str(error))


def _smi(device: torch.device) -> Meter | None:
    """By the device's uuid, for the tool counts devices that CUDA_VISIBLE_DEVICES hides."""
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    ask = [SMI, f"--id=GPU-{uuid}", "--format=csv,noheader,nounits"]
    for field, lag_s in (("power.draw.instant", SHORT_S), ("power.draw", LONG_S)):
        query = [*ask, f"--query-gpu={field}"]
        try:
            said = subprocess.run(query, capture_output=True, text=True, timeout=60).stdout
        except (OSError, subprocess.TimeoutExpired):
            return None
        if _number(said) is not None:
            described = f"{SMI}, {field}" + (", a mean of 1 s" if lag_s == LONG_S else "")
            return Samples(described, _spoken([*query, f"--loop-ms={PERIOD_S * 1000:.0f}"]), lag_s)
    return None


def _spoken(command: list[str]) -> Iterator[float]:
    """The numbers that a process prints, a line each, until this one ends."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    atexit.register(process.terminate)
    assert process.stdout
    yield from (number for line in process.stdout if (number := _number(line)) is not None)


def _told_by_torch(kind: Kind, device: torch.device, tell: Callable[[torch.device], float]) -> Meter:
    """torch says watts of an XPU and mW of a GPU by NVIDIA. Of others it documents mW, and hands on watts."""

    def watts() -> float | None:
        said = float(tell(device))
        if kind.word == "cuda" and (torch.version.hip is None or said > MOST_W):
            said /= 1000
        return said if said > 0 else None  # torch's 0 means that the driver does not tell

    def repeated() -> Iterator[float]:
        while True:
            if (power_w := watts()) is not None:
                yield power_w
            time.sleep(PERIOD_S)

    name = f"torch.{kind.word}.power_draw"
    try:
        first_w = watts()
    except Exception as error:  # libraries that torch asks may be missing, too old, or refuse this user
        return Absent(f"{name}: {type(error).__name__}: {error}")
    if first_w is None:
        return Absent(f"{name} says 0")
    return Samples(name, repeated(), SHORT_S if kind.word == "xpu" else LONG_S)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _whole(path: Path) -> int:
    return int(path.read_text())
