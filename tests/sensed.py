"""Launches of which every reading is made up, so that what is made of them can be computed by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.collector.sampling import Recording
from bench.collector.sensors import Denied, Found, Sensor
from bench.collector.series import Series
from bench.facts import PhaseFacts, SessionFacts
from bench.launch import Heard, Launch, Timed
from bench.types import Device

S = 10**9
GPU, CPU = "pci:0000:03:00.0", "cpu:0"


def sensor(device: str, quantity: Any, part: str, **given: Any) -> Sensor:
    kind = "counter" if quantity in ("energy", "throttle-time", "errors") else "gauge"
    return Sensor(device=device, quantity=quantity, part=part, kind=kind, source="a test", **given)


def read(what: Sensor, value: Callable[[float], float], *, until_s: float = 60, every_s: float = 0.1) -> Series:
    times = [round(index * every_s * S) for index in range(round(until_s / every_s))]
    return Series.of(what, [(at_ns, value(at_ns / S)) for at_ns in times])


def recording(*series: Series, denied: Sequence[Denied] = (), **found: Any) -> Recording:
    sensors = [each.sensor for each in series]
    return Recording(found=Found(sensors=sensors, denied=denied, **found), series=series)


def launch(sensed: Recording | None, *computed: Device, idle: Recording | None = None) -> Launch:
    phase = PhaseFacts(activations="f32", compute="f32")
    facts = SessionFacts(
        weights="int8 row",
        prefill=phase,
        decode=phase,
        kv_cache="f32",
        devices=computed,
        asked_placement="here",
        placement=(),
        threads=None,
        resident_weight_bytes=None,
        embedding_bytes=None,
        kv_bytes_per_token=None,
    )
    executed = [
        {"phase": "prefill", "windows_ns": [[10 * S, 16 * S]], "tokens": 3000, "own_pass": True},
        {"phase": "decode", "windows_ns": [[20 * S, 30 * S], [40 * S, 50 * S]], "tokens": 100, "own_pass": False},
    ]
    timed = [Timed(20 * S, None, 30 * S), Timed(38 * S, 40 * S, 50 * S)]
    heard = Heard(facts=facts, executed={0: executed}, timed_ns={0: timed})
    given: dict[str, Any] = {"launch_id": "", "index": 0, "started_at_utc": "", "versions": {}, "builder": 1}
    return Launch(**given, heard=heard, sensed=sensed, idle=idle)


ON_CPU = Device(kind="cpu", name="a processor")
ON_GPU = Device(kind="gpu", name="a card", uuid="GPU-1")
PACKAGE = sensor(CPU, "energy", "package", wraps_at=65000.0)
CARD = sensor(GPU, "energy", "card")
