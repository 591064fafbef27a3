"""What `bench doctor` says of sensors: the present reading of each, or why there is none and what mends it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.collector.machine.fitness import Finding
from bench.collector.sampling import Recording, Sampler
from bench.collector.series import Series
from bench.units import render_bytes, render_duration, render_number

READ_S, MOST_READ_S = 1.5, 10.0
"""Long enough for a counter to move; longer where a meter or a tool is slower."""
STILL, UNREADABLE = "stands still", "not readable"
UNITS = {"energy": "J", "power": "W", "power-limit": "W", "temperature": "°C"}


def findings(meter: Sequence[str]) -> Iterator[Finding]:
    """Reads everything for a moment, as beside a worker."""
    with tempfile.TemporaryDirectory() as folder:
        with Sampler(Path(folder), meter) as sampler:
            if sampler.found.sensors:
                periods_s = [each.period_s for each in sampler.found.sensors if each.pace == "power"]
                time.sleep(min(MOST_READ_S, max([READ_S, *(1.5 * each_s for each_s in periods_s)])))
            sampler.end()
        left = sampler.recording()
    yield from _read(left)
    yield from (
        Finding(what=denied.what, found=f"not read: {denied.why}", fit=False, remedy=denied.remedy)
        for denied in left.found.denied
    )
    if not any(series.sensor.quantity in ("energy", "power") for series in left.series):
        found, remedy = "no sensor: records will say so", "an external meter tells it: docs/collector.md"
        yield Finding(what="energy", found=found, fit=None, remedy=remedy)


def _read(left: Recording) -> Iterator[Finding]:
    """One line a device and quantity; parts beside each other."""
    lines: dict[tuple[str, str], list[Series]] = {}
    for series in left.series:
        lines.setdefault((series.sensor.device, series.sensor.quantity), []).append(series)
    for (device, quantity), parts in lines.items():
        name = left.found.names.get(device)
        readings = [_reading(each) for each in parts]
        told = ", ".join(f"{each.sensor.part} {reading}" for each, reading in zip(parts, readings, strict=True))
        experimental = any(each.sensor.experimental for each in parts)
        yield Finding(
            what=f"{device} {quantity}",
            found=told + (f" ({name})" if name else "") + (", experimental" if experimental else ""),
            fit=any(reading not in (STILL, UNREADABLE) for reading in readings),
        )


def _reading(series: Series) -> str:
    """The last reading; of a counter of energy, the power that it means."""
    sensor, known = series.sensor, [float(value) for value in series.values if value == value]
    if not known:
        return UNREADABLE
    value = known[-1]
    match sensor.quantity:
        case "energy" if sensor.kind == "counter" and len(known) > 1 and series.last_ns > series.first_ns:
            moved_w = (known[-1] - known[0]) / ((series.last_ns - series.first_ns) / 1e9)
            return f"counts, {render_number(moved_w)} W now" if moved_w > 0 else "counts" if moved_w else STILL
        case "clock":
            return f"{render_number(value / 1e6)} MHz"
        case "memory-used":
            return render_bytes(value)
        case "utilization":
            return f"{value:.0%}"
        case "throttle-time":
            return render_duration(value)
        case "throttled":
            return "yes" if value else "no"
        case _:
            return f"{render_number(value)} {UNITS.get(sensor.quantity, '')}".rstrip()
