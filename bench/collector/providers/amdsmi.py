"""Sensors of AMD's GPUs: AMD SMI through AMD's own binding, module `amdsmi`.

One thread may call it: handles used by several told counters that ran backwards (ROCm/amdsmi #115).
"""

from __future__ import annotations

import importlib
import io
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bench.collector.providers.amdsmi_rows import ENERGY, MOST_W, ROWS, Row, number
from bench.collector.providers.tools import pci_addresses
from bench.collector.sensors import Denied, Found, Sensor

VENDOR_ID, GPU_CLASSES = "0x1002", ("0x03", "0x12")
"""Display controllers (0x0380 where nothing can be plugged in) and processing accelerators."""
SELF_TEST_S = 0.5
REASONS = {
    "power": "acc_ppt_pwr",
    "prochot": "acc_prochot_thrm",
    "thermal": "acc_socket_thrm",
    "vr-thermal": "acc_vr_thrm",
    "memory-thermal": "acc_hbm_thrm",
}
"""Clocks below the host's limit are left out: they are low where there is little to do, too."""
STANDS_STILL = "counter stands still (ROCm/amdsmi #38)"
INSTALL = shlex.join([sys.executable, "-m", "pip", "install", "/opt/rocm/share/amd_smi"])
"""Into the Python that executes this, whichever `pip` a shell would find."""
REMEDY = f"install ROCm's package amd-smi-lib, then: `{INSTALL}`"


@dataclass(slots=True)
class Held:
    """For how many seconds a reason of throttling has held since the first reading.

    The firmware counts the ticks with the reason and all ticks; what a tick lasts is not documented, the share of them
    is (amd_smi.cc computes its percentages so), and the time between two readings is known.
    """

    seconds: float = 0.0
    last: tuple[float, float, float] | None = None

    def add(self, ticks: float | None, of: float | None, at_s: float) -> float | None:
        """The seconds after a reading; None, and a new beginning at 0, where the counts contradict each other."""
        if ticks is None or of is None:
            return None
        if self.last is None:
            self.last = (ticks, of, at_s)
            return self.seconds
        grown, passed = ticks - self.last[0], of - self.last[1]
        if grown == passed == 0:  # nothing new was counted; the time since is shared out at the next reading
            return self.seconds
        if not 0 <= grown <= passed:
            self.seconds, self.last = 0.0, (ticks, of, at_s)
            return None
        self.seconds += grown / passed * (at_s - self.last[2])
        self.last = (ticks, of, at_s)
        return self.seconds


def _market_name(library: Any, handle: Any) -> str:
    return str(library.amdsmi_get_gpu_asic_info(handle)["market_name"])


def _uuid(library: Any, handle: Any) -> str:
    return str(library.amdsmi_get_gpu_device_uuid(handle))


class AmdSmi:
    """Reads AMD's GPUs through AMD SMI, opened by `probe`, closed by `close`; energy only of counters that move."""

    name: ClassVar[str] = "amdsmi"

    def __init__(
        self,
        library: Any = None,
        root: Path = Path("/sys"),
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._given, self._root, self._sleep, self._clock = library, root, sleep, clock
        self._library: Any = None
        self._failures: tuple[type[Exception], ...] = (AttributeError, KeyError, OSError, TypeError, ValueError)
        self._handles: dict[str, Any] = {}
        self._rows: dict[str, Row] = {}
        self._held: dict[str, Held] = {}

    def probe(self) -> Found:
        """The GPUs that both the kernel and AMD SMI show; nothing, and nothing denied, where the kernel shows none.

        Takes half a second for the counters' test.
        """
        addresses = pci_addresses(self._root / "bus/pci/devices", VENDOR_ID, GPU_CLASSES)
        if not addresses:
            return Found()
        try:
            with redirect_stdout(io.StringIO()):  # it prints why its library is missing
                library = self._given if self._given is not None else importlib.import_module("amdsmi")
        except (ImportError, KeyError, AttributeError, OSError) as error:
            return _denied_all(f"the Python package amdsmi cannot be imported ({_line(error)})", REMEDY)
        self._failures = (*self._failures, getattr(library, "AmdSmiException", OSError))
        try:
            with redirect_stdout(io.StringIO()):
                library.amdsmi_init()
                self._library = library
                handles = list(library.amdsmi_get_processor_handles())
        except self._failures as error:
            return _denied_all(f"AMD SMI does not start ({_line(error)})", None)
        for handle in handles:
            try:
                address = str(library.amdsmi_get_gpu_device_bdf(handle)).lower()
            except self._failures:
                continue
            if address in addresses:  # partitions of a GPU are functions that the kernel does not list
                self._handles.setdefault(f"pci:{address}", handle)
        sensors, denied = self._tested()
        for device in self._handles:
            sensors += [self._sensor(device, row) for row in ROWS if self._ask(row.ask, device) is not None]
            sensors += self._throttles(device)
        names = {device: name for device in self._handles if (name := self._ask(_market_name, device))}
        uuids = {device: uuid for device in self._handles if (uuid := self._ask(_uuid, device))}
        return Found(sensors=sensors, denied=denied, names=names, uuids=uuids)

    def read(self, sensors: Sequence[Sensor]) -> list[float | None]:
        """Of each, now; a GPU's reasons of throttling are asked for once, which takes the library 0.1 s."""
        violations: dict[str, tuple[Mapping[str, Any], float]] = {}
        values: list[float | None] = []
        for sensor in sensors:
            if sensor.id in self._held:
                if sensor.device not in violations:
                    violations[sensor.device] = self._violations(sensor.device)
                told, at_s = violations[sensor.device]
                ticks, of = number(told.get(REASONS[sensor.part])), number(told.get("acc_counter"))
                values.append(self._held[sensor.id].add(ticks, of, at_s))
            else:
                row = self._rows.get(sensor.id)
                values.append(None if row is None else self._ask(row.ask, sensor.device))
        return values

    def close(self) -> None:
        """Shut the library down."""
        library, self._library = self._library, None
        if library is not None:
            with suppress(*self._failures):
                library.amdsmi_shut_down()

    def _tested(self) -> tuple[list[Sensor], list[Denied]]:
        """Energy counters that move while the GPU draws power, and why the others are none."""
        before = {device: (self._ask(ENERGY.ask, device), self._clock()) for device in self._handles}
        told = {device: joules for device, (joules, _) in before.items() if joules is not None}
        if not told:
            return [], []
        self._sleep(SELF_TEST_S)
        sensors, denied = [], []
        for device, joules in told.items():
            after, elapsed_s = self._ask(ENERGY.ask, device), self._clock() - before[device][1]
            if after is not None and 0 < after - joules <= MOST_W * elapsed_s:
                sensors.append(self._sensor(device, ENERGY))
            else:
                why = STANDS_STILL if after == joules else "counter vanishes, runs back or tells what no GPU can use"
                denied.append(Denied(what=f"energy of {device}", why=why))
        return sensors, denied

    def _throttles(self, device: str) -> list[Sensor]:
        told, _ = self._violations(device)
        if number(told.get("acc_counter")) is None:
            return []
        sensors = []
        for part, key in REASONS.items():
            if number(told.get(key)) is not None:
                sensor = Sensor(
                    device=device,
                    quantity="throttle-time",
                    part=part,
                    kind="counter",
                    source=f"amdsmi_get_violation_status {key}",
                    pace="edges",
                )
                self._held[sensor.id] = Held()
                sensors.append(sensor)
        return sensors

    def _violations(self, device: str) -> tuple[Mapping[str, Any], float]:
        """What the library says of throttling, nothing where it fails, and when."""
        told = self._ask(lambda library, handle: library.amdsmi_get_violation_status(handle), device)
        return (told if isinstance(told, Mapping) else {}), self._clock()

    def _sensor(self, device: str, row: Row) -> Sensor:
        sensor = row.sensor(device)
        self._rows[sensor.id] = row
        return sensor

    def _ask(self, ask: Callable[[Any, Any], Any], device: str) -> Any:
        """What `ask(library, handle)` returns; None where the library, this version of it or this GPU cannot tell."""
        handle = self._handles.get(device)
        if self._library is None or handle is None:
            return None
        try:
            return ask(self._library, handle)
        except self._failures:
            return None


def _denied_all(why: str, remedy: str | None) -> Found:
    return Found(denied=[Denied(what="energy and throttling of AMD GPUs", why=why, remedy=remedy)])


def _line(error: Exception) -> str:
    """An error on one line: AMD SMI's have several."""
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}").strip()
