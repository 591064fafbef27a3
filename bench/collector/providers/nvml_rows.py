"""What NVML is asked for, and in which bounds an answer is believed: the table of sensors of NVIDIA's devices.

Facts are those of nvml.h unless a comment names another source. None of what is asked needs a privilege.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from bench.collector.sensors import Kind, Pace, Quantity, Sensor

LEAST_W = 1.0
"""No card that computes draws less. Below are watts told as milliwatts, and the 0 of a driver asked too often."""
MOST_W, MOST_MODULE_W = 3000.0, 10_000.0
LEAST_C, MOST_C = 1.0, 150.0
"""A sensor that is not there may tell 0."""
MOST_HZ = 10e9
MOST_REPLAYS = 2**32 - 2
NOT_AVAILABLE = 2**64 - 1
"""NVML_VALUE_NOT_AVAILABLE of 64-bit numbers; that of 32-bit ones lies above what their sensors can reach."""
POWER_PERIOD_S = 0.05
"""Gauges are updated some ten times a second (arXiv 2312.02741); they are read twice as often."""

VALUE_TYPES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""Members of nvmlValue_t, in the order of nvmlValueType_t."""
GPU_SCOPE, MODULE_SCOPE = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One quantity and how NVML is asked for it: `ask(binding, handle)`, in base units; of `bit`, a number of bits."""

    quantity: Quantity
    part: str
    source: str
    ask: Callable[[Any, Any], float]
    kind: Kind = "gauge"
    pace: Pace = "state"
    period_s: float = 0.1
    averaging_s: float = 0.0
    least: float = 0.0
    most: float | None = None
    bit: int = 0

    def sensor(self, device: str) -> Sensor:
        return Sensor(
            device=device,
            quantity=self.quantity,
            part=self.part,
            kind=self.kind,
            source=f"NVML {self.source}",
            pace=self.pace,
            period_s=self.period_s,
            averaging_s=self.averaging_s,
            most=self.most,
        )

    def sound(self, answer: float | None) -> float | None:
        """`answer` as the sensor's value; None for what it cannot be."""
        if answer is None or not math.isfinite(answer):
            return None
        value = float(bool(int(answer) & self.bit)) if self.bit else float(answer)
        return None if value < self.least or (self.most is not None and value > self.most) else value


def _counted(count: int, per_unit: float) -> float:
    return math.nan if count == NOT_AVAILABLE else count / per_unit


def _field(nvml: Any, handle: Any, field: int, scope: int = GPU_SCOPE) -> float:
    """A field value; its own return code counts, the call succeeds whatever became of the fields."""
    told = nvml.nvmlDeviceGetFieldValues(handle, [(field, scope)])[0]
    if told.nvmlReturn != nvml.NVML_SUCCESS:
        raise nvml.NVMLError(told.nvmlReturn)
    known = 0 <= told.valueType < len(VALUE_TYPES)
    return float(getattr(told.value, VALUE_TYPES[told.valueType])) if known else math.nan


def _memory_used(nvml: Any, handle: Any) -> float:
    """Bytes in use; version 2 tells apart what the driver reserves, so a driver without it (before 510) has none."""
    return _counted(nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2).used, 1)


def _event_reasons(nvml: Any, handle: Any) -> int:
    try:
        return int(nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
    except nvml.NVMLError_FunctionNotFound:  # its name before driver 535
        return int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))


def _temperature(nvml: Any, handle: Any) -> float:
    try:
        return float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    except nvml.NVMLError_FunctionNotFound:  # to be removed in CUDA 14, says the binding
        return float(nvml.nvmlDeviceGetTemperatureV(handle, nvml.NVML_TEMPERATURE_GPU))


def _violated(policy: str) -> Callable[[Any, Any], float]:
    def ask(nvml: Any, handle: Any) -> float:
        return _counted(nvml.nvmlDeviceGetViolationStatus(handle, getattr(nvml, policy)).violationTime, 1e9)

    return ask


def _processes(nvml: Any, handle: Any) -> float:
    """How many processes compute, whoever they are.

    In a container without the host's process ids NVML may list nobody although somebody computes. Asked by version 2
    first: version 3 is the same, but drivers 535.43 to 535.86 tell longer entries by it, and 535.98 has none (nvitop
    #79, #89). By its name without a version the binding hides "function not found" behind an error of no NVML.
    """
    try:
        told = nvml.nvmlDeviceGetComputeRunningProcesses_v2(handle)
    except nvml.NVMLError_FunctionNotFound:
        told = nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)
    return float(len({process.pid for process in told}))


def _ecc_errors(kind: str) -> Callable[[Any, Any], float]:
    """Since the driver was loaded, in all memories of the device, caches and registers too."""

    def ask(nvml: Any, handle: Any) -> float:
        return _counted(nvml.nvmlDeviceGetTotalEccErrors(handle, getattr(nvml, kind), nvml.NVML_VOLATILE_ECC), 1)

    return ask


def _clock(domain: str) -> Callable[[Any, Any], float]:
    return lambda nvml, handle: float(nvml.nvmlDeviceGetClockInfo(handle, getattr(nvml, domain)) * 10**6)


ENERGY = Row(
    quantity="energy",
    part="card",
    kind="counter",
    pace="power",
    source="nvmlDeviceGetTotalEnergyConsumption",
    ask=lambda nvml, handle: _counted(nvml.nvmlDeviceGetTotalEnergyConsumption(handle), 1e3),
)
INSTANT = Row(
    quantity="power",
    part="card",
    pace="power",
    period_s=POWER_PERIOD_S,
    source="field 186 (NVML_FI_DEV_POWER_INSTANT)",
    ask=lambda nvml, handle: _field(nvml, handle, nvml.NVML_FI_DEV_POWER_INSTANT) / 1e3,
    least=LEAST_W,
    most=MOST_W,
)
MODULE = replace(
    INSTANT,
    part="module",
    source="field 186 (NVML_FI_DEV_POWER_INSTANT), module scope",
    ask=lambda nvml, handle: _field(nvml, handle, nvml.NVML_FI_DEV_POWER_INSTANT, MODULE_SCOPE) / 1e3,
    most=MOST_MODULE_W,
)
USAGE = replace(
    INSTANT,
    source="nvmlDeviceGetPowerUsage",
    ask=lambda nvml, handle: nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
)
LIMIT = Row(
    quantity="power-limit",
    part="card",
    pace="edges",
    source="nvmlDeviceGetEnforcedPowerLimit",
    ask=lambda nvml, handle: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3,
    least=LEAST_W,
    most=MOST_W,
)
PROCESSES = Row(
    quantity="processes",
    part="compute",
    pace="edges",
    source="nvmlDeviceGetComputeRunningProcesses_v2",
    ask=_processes,
)
MEMORY_USED = Row(quantity="memory-used", part="card", source="nvmlDeviceGetMemoryInfo_v2", ask=_memory_used)
STATE = (
    Row(
        quantity="temperature",
        part="gpu",
        source="nvmlDeviceGetTemperature",
        ask=_temperature,
        least=LEAST_C,
        most=MOST_C,
    ),
    Row(
        quantity="temperature",
        part="memory",
        source="field 82 (NVML_FI_DEV_MEMORY_TEMP)",
        ask=lambda nvml, handle: _field(nvml, handle, nvml.NVML_FI_DEV_MEMORY_TEMP),
        least=LEAST_C,
        most=MOST_C,
    ),
    Row(quantity="clock", part="sm", source="nvmlDeviceGetClockInfo", ask=_clock("NVML_CLOCK_SM"), most=MOST_HZ),
    Row(quantity="clock", part="memory", source="nvmlDeviceGetClockInfo", ask=_clock("NVML_CLOCK_MEM"), most=MOST_HZ),
    Row(
        quantity="utilization",
        part="gpu",
        pace="edges",
        source="nvmlDeviceGetUtilizationRates",
        ask=lambda nvml, handle: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        most=1.0,
    ),
    *(
        Row(
            quantity="throttle-time",
            part=part,
            kind="counter",
            pace="edges",
            source="nvmlDeviceGetViolationStatus",
            ask=_violated(policy),
        )
        for part, policy in (("power", "NVML_PERF_POLICY_POWER"), ("thermal", "NVML_PERF_POLICY_THERMAL"))
    ),
    *(
        Row(
            quantity="errors",
            part=part,
            kind="counter",
            pace="edges",
            source="nvmlDeviceGetTotalEccErrors",
            ask=_ecc_errors(kind),
        )
        for part, kind in (
            ("ecc-corrected", "NVML_MEMORY_ERROR_TYPE_CORRECTED"),
            ("ecc-uncorrected", "NVML_MEMORY_ERROR_TYPE_UNCORRECTED"),
        )
    ),
    Row(
        quantity="errors",
        part="pcie-replay",
        kind="counter",
        pace="edges",
        source="nvmlDeviceGetPcieReplayCounter",
        ask=lambda nvml, handle: float(nvml.nvmlDeviceGetPcieReplayCounter(handle)),
        most=MOST_REPLAYS,
    ),
    *(
        Row(
            quantity="throttled",
            part=part,
            source="nvmlDeviceGetCurrentClocksEventReasons",
            ask=_event_reasons,
            bit=bit,
        )
        for part, bit in (
            ("power-cap", 0x4),
            ("hw-slowdown", 0x8),
            ("sw-thermal", 0x20),
            ("hw-thermal", 0x40),
            ("power-brake", 0x80),
        )
    ),
)
