"""From readings to the energy and the conditions of a record; every number is one that can be computed by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from bench import metering
from bench.collector.contention import Beside
from bench.collector.sampling import Recording
from bench.collector.sensors import Denied, Found, Sensor
from bench.collector.series import Series
from bench.facts import PhaseFacts, SessionFacts
from bench.launch import Heard, Launch
from bench.types import Device

S = 10**9
GPU, CPU = "pci:0000:03:00.0", "cpu:0"


def sensor(device: str, quantity: Any, part: str, **given: Any) -> Sensor:
    kind = "counter" if quantity in ("energy", "throttle-time") else "gauge"
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
    heard = Heard(facts=facts, executed={0: executed})
    given: dict[str, Any] = {"launch_id": "", "index": 0, "started_at_utc": "", "versions": {}, "builder": 1}
    return Launch(**given, heard=heard, sensed=sensed, idle=idle)


ON_CPU = Device(kind="cpu", name="a processor")
ON_GPU = Device(kind="gpu", name="a card", uuid="GPU-1")
PACKAGE = sensor(CPU, "energy", "package", wraps_at=65000.0)
CARD = sensor(GPU, "energy", "card")


def test_watts_times_seconds_are_joules_by_phase_and_token() -> None:
    energy = metering.energy(0, launch(recording(read(PACKAGE, lambda s: 100 * s)), ON_CPU))
    prefill, decode = energy.uses
    assert (prefill.phase, prefill.joules, prefill.tokens) == ("prefill", pytest.approx(600), 3000)
    assert (decode.joules, decode.seconds, decode.windows) == (pytest.approx(2000), 20, 2)
    assert prefill.counted and prefill.own_pass and not decode.own_pass
    assert (decode.method, decode.mean_w) == ("counter", pytest.approx(100))
    assert energy.reason is None


def test_the_idle_baseline_is_taken_off_beside_the_gross() -> None:
    idle = recording(read(PACKAGE, lambda s: 30 * s, until_s=30))
    energy = metering.energy(0, launch(recording(read(PACKAGE, lambda s: 100 * s)), ON_CPU, idle=idle))
    assert energy.uses[1].joules == pytest.approx(2000)
    assert energy.uses[1].net_j == pytest.approx(1400)
    [baseline] = energy.idle
    assert baseline.mean_w == pytest.approx(30) and baseline.duration_s == pytest.approx(30, abs=0.2)


def test_without_a_baseline_there_is_no_net() -> None:
    energy = metering.energy(0, launch(recording(read(PACKAGE, lambda s: 100 * s)), ON_CPU))
    assert energy.uses[0].net_j is None and energy.idle == []


@pytest.mark.parametrize(
    ("parts", "counted"),
    [
        (("package", "dram"), {"package", "dram"}),
        (("package", "psys"), {"package"}),
        (("package-0-die-0", "package-0-die-1"), {"package-0-die-0", "package-0-die-1"}),
    ],
)
def test_what_overlaps_is_never_added(parts: tuple[str, ...], counted: set[str]) -> None:
    series = [read(sensor("platform" if part == "psys" else CPU, "energy", part), lambda s: s) for part in parts]
    energy = metering.energy(0, launch(recording(*series), ON_CPU))
    assert {use.part for use in energy.uses if use.counted} == counted
    assert {use.part for use in energy.uses} == set(parts), "the others are told nevertheless"


def test_of_a_card_one_part_is_counted() -> None:
    series = [read(sensor(GPU, "energy", part), lambda s: 50 * s) for part in ("pkg", "card")]
    energy = metering.energy(0, launch(recording(*series, uuids={GPU: "gpu-1"}), ON_GPU))
    assert {use.part for use in energy.uses if use.counted} == {"card"}


@pytest.mark.parametrize(
    ("device", "found", "counted"),
    [
        (ON_GPU, {"uuids": {GPU: "gpu-1"}}, True),
        (ON_GPU, {"uuids": {GPU: "GPU-2"}}, False),
        (Device(kind="gpu", name="a card"), {"names": {GPU: "a card"}}, True),
        (Device(kind="gpu", name="a card"), {"names": {GPU: "a card", "pci:0000:04:00.0": "a card"}}, False),
        (Device(kind="gpu", name="a card"), {}, False),
        (ON_CPU, {"names": {GPU: "a processor"}}, False),
    ],
)
def test_a_card_counts_only_if_it_is_the_one_that_computed(device: Device, found: Any, counted: bool) -> None:
    energy = metering.energy(0, launch(recording(read(CARD, lambda s: 50 * s), **found), device))
    assert all(use.counted is counted for use in energy.uses)
    assert (energy.reason is None) is counted


def test_of_two_sensors_of_one_quantity_the_first_that_can_be_read_is_taken() -> None:
    dead = Series.of(sensor(CPU, "energy", "package"), [(0, None), (S, None)])
    energy = metering.energy(0, launch(recording(dead, read(PACKAGE, lambda s: 100 * s)), ON_CPU))
    assert [use.joules for use in energy.uses] == [pytest.approx(600), pytest.approx(2000)]


def test_a_counter_that_stands_still_leaves_the_reason() -> None:
    energy = metering.energy(0, launch(recording(read(PACKAGE, lambda s: 5000)), ON_CPU))
    assert all(use.joules is None and use.reason for use in energy.uses)
    assert energy.reason and CPU in energy.reason


def test_more_than_the_power_limit_allows_is_refused() -> None:
    limit = Series.of(sensor(GPU, "power-limit", "card", pace="edges"), [(0, 300.0)])
    wrong_unit = read(CARD, lambda s: 200_000 * s)
    energy = metering.energy(0, launch(recording(wrong_unit, limit, uuids={GPU: "gpu-1"}), ON_GPU))
    assert all(use.joules is None for use in energy.uses)


def test_without_sensors_the_reason_names_what_was_denied() -> None:
    denied = [Denied(what="processor energy", why="virtual machines show none")]
    assert metering.energy(0, launch(recording(denied=denied), ON_CPU)).reason == (
        "no sensor of energy or power (processor energy: virtual machines show none)"
    )
    assert metering.energy(0, launch(None, ON_CPU)).reason == "no sensor was looked for"


@pytest.mark.parametrize(("period_s", "least_s"), [(0.001, 5), (0.1, 5), (1.0, 20), (5.0, 30)])
def test_a_phase_lasts_for_enough_updates(period_s: float, least_s: float) -> None:
    assert metering.least_s(Found(sensors=[sensor(CPU, "energy", "package", period_s=period_s)])) == least_s
    assert metering.least_s(Found(sensors=[sensor(CPU, "clock", "core")])) is None


def test_the_card_that_computed_tells_its_driver_and_limit() -> None:
    settings = {GPU: {"driver": "575.1", "vbios": "96.00", "power_limit_w": 700.0, "ecc": True}}
    sensed = recording(read(CARD, lambda s: 50 * s), uuids={GPU: "gpu-1"}, settings=settings)
    assert metering.device_settings(launch(sensed, ON_GPU)) == {
        "driver": "575.1",
        "firmware": "96.00",
        "power_cap_w": 700.0,
    }
    assert metering.device_settings(launch(sensed, ON_CPU)) == {}
    assert metering.collector(launch(sensed, ON_CPU)).settings == settings


def test_conditions_are_those_of_the_windows() -> None:
    clock = read(sensor(CPU, "clock", "mean"), lambda s: 3e9 if 10 <= s <= 50 else 1e9)
    heat = read(sensor(CPU, "temperature", "chip"), lambda s: 90 if s > 55 else 60)
    slowed = Series.of(sensor(CPU, "throttle-time", "thermal"), [(0, 1.0), (9 * S, 1.0), (51 * S, 1.5)])
    flag = read(sensor(GPU, "throttled", "power-cap"), lambda s: float(20 <= s < 23))
    sensed = launch(recording(clock, heat, slowed, flag), ON_CPU)
    sensed.contention._beside[0] = Beside(others_cores=0.5, steal_ratio=0.0)
    host, cpu, gpu = metering.conditions(0, sensed)
    assert (host.device, host.others_cores) == ("host", 0.5)
    assert cpu.clock_mean_hz == {"mean": pytest.approx(3e9)} and cpu.temperature_highest_c == {"chip": 60}
    assert cpu.throttle_s == {"thermal": pytest.approx(0.5)}
    assert 0 < gpu.throttled_ratio["power-cap"] < 0.2
    said = metering.doubts([host, cpu, gpu])
    assert len(said) == 3 and any("0.5 processors" in text for text in said) and any("thermal" in text for text in said)


def test_a_quiet_machine_gives_no_doubt() -> None:
    quiet = launch(recording(read(sensor(CPU, "throttle-time", "thermal"), lambda s: 1.5)), ON_CPU)
    quiet.contention._beside[0] = Beside(others_cores=0.02, steal_ratio=0.0)
    assert metering.doubts(metering.conditions(0, quiet)) == []
