"""Sensors of NVIDIA's devices: NVML through NVIDIA's own binding, module `pynvml` of the package nvidia-ml-py."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from bench.collector.providers.nvml_rows import (
    ENERGY,
    INSTANT,
    LEAST_W,
    LIMIT,
    MEMORY_USED,
    MODULE,
    MOST_W,
    NOT_AVAILABLE,
    PROCESSES,
    STATE,
    USAGE,
    Row,
)
from bench.collector.sensors import Denied, Found, Sensor

VENDOR, DISPLAY_CLASS = "0x10de", "0x03"
GA100_IDS = range(0x2080, 0x2100)
"""PCI device ids of GA100 (A100, A30, A800 …); NVML tells only "Ampere" of it."""
REMEDIES = MappingProxyType(
    {
        "NVML_ERROR_LIBRARY_NOT_FOUND": "install NVIDIA's driver; in a container: start it with --gpus all",
        "NVML_ERROR_DRIVER_NOT_LOADED": "sudo modprobe nvidia",
        "NVML_ERROR_LIB_RM_VERSION_MISMATCH": "reboot: the driver was updated and the old one is still loaded",
        "NVML_ERROR_NO_PERMISSION": "ls -l /dev/nvidia*: this user must be able to read and write them",
    }
)
INSTALL = shlex.join([sys.executable, "-m", "pip", "install", "nvidia-ml-py"])
"""Into the Python that executes this, whichever `pip` a shell would find."""
NOT_HERE = ("NVML_ERROR_LIBRARY_NOT_FOUND", "NVML_ERROR_DRIVER_NOT_LOADED")
"""What the binding says on a machine without such a device, where some runtime brought the binding along."""
NOT_MADE = ("NVML_ERROR_NOT_SUPPORTED", "NVML_ERROR_FUNCTION_NOT_FOUND", "NVML_ERROR_INVALID_ARGUMENT")
"""This device or this driver has no such sensor; a field that a driver does not know is an invalid argument."""
MIG = "MIG instance: NVML reports no power of its own"
SUPERCHIP = "a superchip's counter may be of the whole module, processor included (ml-energy/zeus #172)"


class Nvml:
    """Reads NVIDIA's devices through NVML, opened by `probe`, closed by `close`.

    A superchip (Grace Hopper and its successors) has its power told by GPU scope where the driver knows that, and no
    energy then: whose the counter is, is not documented. Where only the module's power is told, both are `module`.
    With MIG a card tells its own power and processes, not an instance's: both are left out. A device that fails leaves
    the others.
    """

    name: ClassVar[str] = "nvml"

    def __init__(self, library: Any = None, root: Path = Path("/sys")):
        self._library, self._root = library, root
        self._nvml: Any = None
        self._failures: tuple[type[Exception], ...] = ()
        self._handles: dict[str, Any] = {}
        self._rows: dict[str, Row] = {}

    def probe(self) -> Found:
        """The devices that NVML tells of; nothing at all where this machine has none, whatever is installed."""
        self.close()
        denied = list(self._begin())
        if self._nvml is None:
            return Found(denied=denied)
        sensors: list[Sensor] = []
        names: dict[str, str] = {}
        uuids: dict[str, str] = {}
        for index in range(self._count(denied)):
            try:
                handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
                device = _device_name(self._nvml.nvmlDeviceGetPciInfo(handle).busId)
            except self._failures as error:
                denied.append(Denied(what=f"NVML device {index}", why=str(error), remedy=self._remedy(error)))
                continue
            self._handles[device] = handle
            for told, function in ((names, "nvmlDeviceGetName"), (uuids, "nvmlDeviceGetUUID")):
                if text := self._told(function, handle):
                    told[device] = text
            sensors += self._sensors(device, handle, denied)
        return Found(sensors=sensors, denied=denied, names=names, uuids=uuids, settings=self.identity())

    def read(self, sensors: Sequence[Sensor]) -> list[float | None]:
        """Of each, now; what several sensors are bits of is asked once. NVML's errors and nonsense are None."""
        answers: dict[tuple[str, Any], float | None] = {}
        values: list[float | None] = []
        for sensor in sensors:
            row, handle = self._rows.get(sensor.id), self._handles.get(sensor.device)
            if row is None:
                values.append(None)
                continue
            key = (sensor.device, row.ask)
            if key not in answers:
                answers[key] = self._asked(row, handle)
            values.append(row.sound(answers[key]))
        return values

    def identity(self) -> dict[str, dict[str, str | float | bool | None]]:
        """What each device that `probe` found is and how it is set, by `Sensor.device`; unknown fields are None.

        PCIe's generation and width are the link's at this moment: idle cards lower them.
        """
        return {device: self._identity(handle) for device, handle in self._handles.items()}

    def close(self) -> None:
        """Shut NVML down if `probe` had started it; a second call does nothing."""
        if self._nvml is not None:
            self._told("nvmlShutdown")
        self._nvml, self._handles, self._rows = None, {}, {}

    def _begin(self) -> Iterator[Denied]:
        """Import and initialize; yields what stands in the way."""
        what = "sensors of NVIDIA's devices"
        try:
            nvml = self._library or importlib.import_module("pynvml")
        except ImportError:
            if _present(self._root):
                yield Denied(what=what, why="NVIDIA's binding is not installed", remedy=INSTALL)
            return
        # a binding that is older than a function; text of a driver that is no UTF-8 or no address
        self._failures = (nvml.NVMLError, AttributeError, TypeError, ValueError)
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            if _present(self._root) or not _is(nvml, error, NOT_HERE):
                yield Denied(what=what, why=f"NVML: {error}", remedy=_remedy(nvml, error))
            return
        self._nvml = nvml

    def _count(self, denied: list[Denied]) -> int:
        try:
            return int(self._nvml.nvmlDeviceGetCount())
        except self._failures as error:
            denied.append(Denied(what="NVIDIA's devices", why=f"NVML: {error}", remedy=self._remedy(error)))
            return 0

    def _sensors(self, device: str, handle: Any, denied: list[Denied]) -> Iterator[Sensor]:
        """Sensors of one device; what it refuses goes to `denied`, once for each reason."""
        refused: dict[str, list[str]] = {}
        memory_bytes = self._bytes("nvmlDeviceGetMemoryInfo", "total", handle, self._version_2())
        rows = [*self._power(device, handle, denied), *STATE, replace(MEMORY_USED, most=memory_bytes)]
        if not self._partitioned(handle):
            rows.append(PROCESSES)
        for row in rows:
            try:
                row.ask(self._nvml, handle)
            except self._failures as error:
                if row.quantity in ("energy", "power") or not self._not_made(error):
                    refused.setdefault(str(error), []).append(f"{row.quantity} {row.part}")
                continue
            sensor = row.sensor(device)
            self._rows[sensor.id] = row
            yield sensor
        for why, what in refused.items():
            denied.append(Denied(what=f"{device}: {', '.join(what)}", why=f"NVML: {why}"))

    def _power(self, device: str, handle: Any, denied: list[Denied]) -> list[Row]:
        """Rows of energy and power that are this device's own, bounded by what the card may be set to."""
        constraints = self._told("nvmlDeviceGetPowerManagementLimitConstraints", handle)
        most_w = _watts(constraints[1]) if constraints else None
        most_w = MOST_W if most_w is None else 1.5 * most_w
        limit = replace(LIMIT, most=most_w)
        instant = replace(INSTANT, most=most_w)
        usage = replace(USAGE, most=most_w, averaging_s=self._averaging_s(handle))
        if self._partitioned(handle):
            remedy = f"sudo nvidia-smi -i {device.removeprefix('pci:')} -mig 0"
            denied.append(Denied(what=f"{device}: energy, power", why=MIG, remedy=remedy))
            return [limit]
        superchip = self._told("nvmlDeviceGetC2cModeInfoV", handle)
        if superchip is None or not superchip.isC2cEnabled:
            return [ENERGY, usage if self._asked(instant, handle) is None else instant, limit]
        if self._asked(instant, handle) is None and self._asked(MODULE, handle) is not None:
            return [replace(ENERGY, part="module"), MODULE, limit]
        denied.append(Denied(what=f"{device}: energy", why=SUPERCHIP))
        return [instant, limit]

    def _partitioned(self, handle: Any) -> bool:
        """Whether MIG is on: what a card then tells is not of the instance that computes."""
        return bool((self._told("nvmlDeviceGetMigMode", handle) or [0])[0])

    def _averaging_s(self, handle: Any) -> float:
        """Over what nvmlDeviceGetPowerUsage averages: 1 s, but nothing on GA100 and on what came before Ampere.

        A device whose architecture is not told counts as one that averages: its figures then need longer windows.
        """
        architecture = self._told("nvmlDeviceGetArchitecture", handle)
        pci = self._told("nvmlDeviceGetPciInfo", handle)
        older = architecture is not None and architecture < self._nvml.NVML_DEVICE_ARCH_AMPERE
        return 0.0 if older or (pci is not None and pci.pciDeviceId >> 16 in GA100_IDS) else 1.0

    def _identity(self, handle: Any) -> dict[str, str | float | bool | None]:
        link = {
            f"pcie_{field}": _within(self._told(f"nvmlDeviceGet{function}", handle), 1, 32)
            for field, function in (
                ("generation", "CurrPcieLinkGeneration"),
                ("generation_max", "MaxPcieLinkGeneration"),
                ("width", "CurrPcieLinkWidth"),
                ("width_max", "MaxPcieLinkWidth"),
            )
        }
        bar1_bytes = self._bytes("nvmlDeviceGetBAR1MemoryInfo", "bar1Total", handle)
        memory_bytes = self._bytes("nvmlDeviceGetMemoryInfo", "total", handle, self._version_2())
        return {
            "driver": self._told("nvmlSystemGetDriverVersion"),
            "vbios": self._told("nvmlDeviceGetVbiosVersion", handle),
            "power_limit_w": _watts(self._told("nvmlDeviceGetEnforcedPowerLimit", handle)),
            "power_limit_default_w": _watts(self._told("nvmlDeviceGetPowerManagementDefaultLimit", handle)),
            **link,
            "ecc": _switch((self._told("nvmlDeviceGetEccMode", handle) or [None])[0]),
            "persistence": _switch(self._told("nvmlDeviceGetPersistenceMode", handle)),
            "bar1_bytes": bar1_bytes,
            "memory_bytes": memory_bytes,
            "resizable_bar": None if bar1_bytes is None or memory_bytes is None else bar1_bytes >= memory_bytes,
        }

    def _told(self, function: str, *arguments: Any) -> Any:
        """What a function of NVML returns; None where it fails or the binding is older."""
        try:
            return getattr(self._nvml, function)(*arguments)
        except self._failures:
            return None

    def _asked(self, row: Row, handle: Any) -> float | None:
        try:
            return row.ask(self._nvml, handle)
        except self._failures:
            return None

    def _bytes(self, function: str, field: str, *arguments: Any) -> int | None:
        told = getattr(self._told(function, *arguments), field, None)
        return _within(told, 1, NOT_AVAILABLE - 1)

    def _version_2(self) -> Any:
        """The second layout of nvmlMemory_t, whose `used` is without what the driver reserves."""
        return getattr(self._nvml, "nvmlMemory_v2", None)

    def _not_made(self, error: Exception) -> bool:
        return isinstance(error, AttributeError) or _is(self._nvml, error, NOT_MADE)

    def _remedy(self, error: Exception) -> str | None:
        return _remedy(self._nvml, error)


def _is(nvml: Any, error: Exception, codes: Sequence[str]) -> bool:
    """Whether `error` is one of NVML's `codes`."""
    return getattr(error, "value", None) in [getattr(nvml, code) for code in codes]


def _remedy(nvml: Any, error: Exception) -> str | None:
    return next((remedy for code, remedy in REMEDIES.items() if _is(nvml, error, [code])), None)


def _within(value: int | None, least: int, most: int) -> int | None:
    return value if value is not None and least <= value <= most else None


def _watts(milliwatts: int | None) -> float | None:
    """A power limit; None where no card can have it."""
    return None if milliwatts is None or not LEAST_W <= milliwatts / 1e3 <= MOST_W else milliwatts / 1e3


def _switch(state: int | None) -> bool | None:
    """nvmlEnableState_t: 1 is enabled."""
    return {0: False, 1: True}.get(state) if state is not None else None


def _present(root: Path) -> bool:
    """Whether the kernel shows an NVIDIA display device; not their sound functions, bridges and network cards."""
    for device in (root / "bus/pci/devices").glob("*"):
        try:
            vendor, kind = (device / "vendor").read_text(), (device / "class").read_text()
        except (OSError, ValueError):
            continue
        if vendor.strip() == VENDOR and kind.startswith(DISPLAY_CLASS):
            return True
    return False


def _device_name(bus_id: str) -> str:
    """`pci:0000:3b:00.0` of NVML's `00000000:3B:00.0`, as the kernel writes it; ValueError of what is no address."""
    parts = re.fullmatch(r"([0-9a-f]+):([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", bus_id.lower())
    if parts is None:
        raise ValueError(f"not a PCI address: {bus_id!r}")
    return f"pci:{int(parts[1], 16):04x}:{parts[2]}"
