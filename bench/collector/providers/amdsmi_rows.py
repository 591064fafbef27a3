"""What AMD SMI is asked for, and in which bounds an answer is believed: the table of sensors of AMD's GPUs.

Names, keys and units are those of ROCm's python interface (amdsmi_interface.py of 7.0.2) and of its amd_smi.cc.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.collector.sensors import Kind, Pace, Quantity, Sensor

LEAST_W, MOST_W = 0.5, 3000.0
LEAST_C, MOST_C = 1.0, 150.0
MILLIDEGREES_FROM = 1000.0
"""No GPU is so hot in °C, and none so cold in m°C."""
POWERS = ("socket_power", "current_socket_power", "average_socket_power")
"""The first since ROCm 7.0; the second of MI300 and later, the third of what is older."""
NOT_AVAILABLE = 2.0**64 - 1
"""All ones, as the library writes a number of 64 bits that it does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A sensor of every GPU that tells it: `ask(library, handle)` is a sound number in the sensor's unit, or None."""

    quantity: Quantity
    part: str
    source: str
    ask: Callable[[Any, Any], float | None]
    kind: Kind = "gauge"
    pace: Pace = "power"
    most: float | None = None

    def sensor(self, device: str) -> Sensor:
        return Sensor(
            device=device,
            quantity=self.quantity,
            part=self.part,
            kind=self.kind,
            source=self.source,
            pace=self.pace,
            most=self.most,
        )


def number(told: Any) -> float | None:
    """A number ≥ 0 as the binding tells it; None of "N/A" and whatever else is none."""
    if isinstance(told, bool) or not isinstance(told, int | float):
        return None
    return float(told) if math.isfinite(told) and told >= 0 else None


def _energy_j(library: Any, handle: Any) -> float | None:
    """Ticks × µJ a tick; before ROCm 6.2.1 the ticks were called `power`."""
    told = library.amdsmi_get_energy_count(handle)
    ticks, microjoules = number(told.get("energy_accumulator", told.get("power"))), number(told["counter_resolution"])
    return ticks * microjoules / 1e6 if ticks is not None and microjoules else None


def _power_w(library: Any, handle: Any) -> float | None:
    """W, whole ones. The first of its names that tells any: 0 and "N/A" are of GPUs that know the other."""
    told = library.amdsmi_get_power_info(handle)
    watts = (number(told.get(name)) for name in POWERS)
    return next((each for each in watts if each is not None and LEAST_W <= each <= MOST_W), None)


def _memory_used_bytes(library: Any, handle: Any) -> float | None:
    told = library.amdsmi_get_gpu_vram_usage(handle)
    used, total = number(told["vram_used"]), number(told["vram_total"])
    return used * 2**20 if used is not None and total is not None and used <= total else None


def _temperature_c(place: str) -> Callable[[Any, Any], float | None]:
    """°C of what documents call m°C and the library has divided already, or not."""

    def ask(library: Any, handle: Any) -> float | None:
        kind, moment = getattr(library.AmdSmiTemperatureType, place), library.AmdSmiTemperatureMetric.CURRENT
        told = number(library.amdsmi_get_temp_metric(handle, kind, moment))
        degrees = told / 1000 if told is not None and told > MILLIDEGREES_FROM else told
        return degrees if degrees is not None and LEAST_C <= degrees <= MOST_C else None

    return ask


def _errors(key: str) -> Callable[[Any, Any], float | None]:
    """Errors of all blocks that correct them; of a GPU without any, amd_smi.cc tells 0. Not seen on a real machine."""

    def ask(library: Any, handle: Any) -> float | None:
        if not number(library.amdsmi_get_gpu_ecc_enabled(handle)):
            return None
        count = number(library.amdsmi_get_gpu_total_ecc_count(handle)[key])
        return None if count is None or count >= NOT_AVAILABLE else count

    return ask


ENERGY = Row(quantity="energy", part="chip", kind="counter", source="amdsmi_get_energy_count", ask=_energy_j)
ROWS = (
    Row(quantity="power", part="chip", source="amdsmi_get_power_info", ask=_power_w, most=MOST_W),
    Row(quantity="memory-used", part="vram", pace="state", source="amdsmi_get_gpu_vram_usage", ask=_memory_used_bytes),
    *(
        Row(
            quantity="temperature",
            part=part,
            pace="state",
            source="amdsmi_get_temp_metric",
            ask=_temperature_c(place),
            most=MOST_C,
        )
        for part, place in (("edge", "EDGE"), ("junction", "HOTSPOT"), ("mem", "VRAM"))
    ),
    *(
        Row(
            quantity="errors",
            part=part,
            kind="counter",
            pace="edges",
            source=f"amdsmi_get_gpu_total_ecc_count {key}",
            ask=_errors(key),
        )
        for part, key in (
            ("ecc-corrected", "correctable_count"),
            ("ecc-uncorrected", "uncorrectable_count"),
            ("ecc-deferred", "deferred_count"),
        )
    ),
)
