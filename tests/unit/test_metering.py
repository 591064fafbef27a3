"""From readings to the energy of a record; every number is one that can be computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from bench import metering
from bench.collector.sensors import Denied, Found
from bench.collector.series import Series
from bench.results.metered import Energy, EnergyUse
from bench.types import Device
from tests.sensed import CARD, CPU, GPU, ON_CPU, ON_GPU, PACKAGE, S, launch, read, recording, sensor


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
        (Device(kind="xpu", name="a card", uuid="8680a056-0800-0000"), {"uuids": {GPU: "8680a05608000000"}}, True),
        (Device(kind="gpu", name="a card", uuid="as another library has it", pci=GPU.removeprefix("pci:")), {}, True),
        (Device(kind="gpu", name="a card", pci="0000:04:00.0"), {}, False),
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


@pytest.mark.parametrize(
    ("period_s", "averaging_s", "least_s"),
    [
        (0.001, 0, 5),
        (0.1, 0, 5),
        (1.0, 0, 20),
        (5.0, 0, 30),
        (6.5, 0, None),
        (10.0, 0, None),
        (0.2, 2, 10),
        (0.2, 7, None),
    ],
)
def test_a_phase_lasts_for_enough_updates(period_s: float, averaging_s: float, least_s: float | None) -> None:
    asked = sensor(CPU, "power", "package", period_s=period_s, averaging_s=averaging_s)
    quick = sensor(GPU, "energy", "card", period_s=0.05)
    assert metering.least_s(Found(sensors=[asked])) == least_s
    assert metering.least_s(Found(sensors=[asked, quick])) == (least_s or 5), "a slow one asks for nothing"
    assert metering.least_s(Found(sensors=[sensor(CPU, "clock", "core")])) is None


def test_a_sensor_that_is_too_slow_for_a_pass_says_so() -> None:
    """A tool of which a call takes 2 s is called every 10 s."""
    slow = read(sensor(GPU, "power", "card", period_s=10.0), lambda s: 200.0, every_s=10)
    found = metering.energy(0, launch(recording(slow, uuids={GPU: "gpu-1"}), ON_GPU))
    assert [use.joules for use in found.uses] == [None, None]
    assert found.reason and found.reason.count("its sensor is too slow: one reading in 10 s") == 2
    quick = read(sensor(GPU, "energy", "card"), lambda s: 200 * s)
    both = metering.energy(0, launch(recording(slow, quick, uuids={GPU: "gpu-1"}), ON_GPU))
    assert both.uses[1].joules == pytest.approx(4000)
    still = read(sensor(GPU, "energy", "card"), lambda s: 200.0)
    failed = metering.energy(0, launch(recording(slow, still, uuids={GPU: "gpu-1"}), ON_GPU))
    assert failed.uses[1].joules is None and "too slow" not in (failed.reason or "")


def test_a_slow_sensor_tells_of_a_phase_that_lasts_long_by_itself() -> None:
    slow = read(sensor(GPU, "power", "card", period_s=10.0), lambda s: 200.0, every_s=10, until_s=200)
    timed = launch(recording(slow, uuids={GPU: "gpu-1"}), ON_GPU)
    timed.heard.executed[0] = [{"phase": "decode", "windows_ns": [[5 * S, 125 * S]], "tokens": 9, "own_pass": False}]
    assert metering.energy(0, timed).uses[0].joules == pytest.approx(24_000)


def test_doubtful_joules_are_said() -> None:
    def told(joules: float | None = 600.0, **more: Any) -> EnergyUse:
        return EnergyUse(**{"device": GPU, "part": "card", "phase": "decode", "counted": True, **more}, joules=joules)

    sure = told(uncertainty_j=60.0, flags=["coarse"])
    assert metering.doubts(Energy(uses=[sure, told(), told(uncertainty_j=62.0)])) == []
    assert metering.doubts(
        Energy(
            uses=[
                told(uncertainty_j=120.0, flags=["coarse", "counter-mismatch"]),
                told(phase="prefill", flags=["dropped-readings"]),
                told(uncertainty_j=120.0, counted=False),
                told(None, flags=["counter-mismatch"]),
                told(uncertainty_j=120.0, counted=False, device="wall", part="wall"),
            ]
        )
    ) == [
        f"energy of {GPU} card in decode: uncertain by 20%, counter mismatch",
        f"energy of {GPU} card in prefill: dropped readings",
        "energy of wall wall in decode: uncertain by 20%",
    ]


def test_doubts_are_those_of_real_readings() -> None:
    counter, power = read(CARD, lambda s: 80 * s), read(sensor(GPU, "power", "card"), lambda s: 100.0)
    energy = metering.energy(0, launch(recording(counter, power, uuids={GPU: "gpu-1"}), ON_GPU))
    assert metering.doubts(energy) == [
        f"energy of {GPU} card in {phase}: counter mismatch" for phase in ("prefill", "decode")
    ]
    quiet = metering.energy(0, launch(recording(counter, uuids={GPU: "gpu-1"}), ON_GPU))
    assert metering.doubts(quiet) == []


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


@pytest.mark.parametrize("settings", [{}, {GPU: {"driver": "6.16", "power_limit_w": None}}])
def test_a_card_without_a_told_limit_has_the_one_that_was_read(settings: dict[str, Any]) -> None:
    """AMD's and Intel's: power1_cap and power1_max of Documentation/ABI/testing/sysfs-class-hwmon."""
    limits = [
        Series.of(sensor(GPU, "power-limit", "chip", pace="edges"), [(0, 225.0), (S, 225.0)]),
        Series.of(sensor("pci:0000:04:00.0", "power-limit", "chip", pace="edges"), [(0, 90.0)]),
    ]
    sensed = recording(*limits, uuids={GPU: "gpu-1"}, settings=settings)
    assert metering.device_settings(launch(sensed, ON_GPU))["power_cap_w"] == 225.0
    assert metering.device_settings(launch(sensed, ON_CPU)) == {}


@pytest.mark.parametrize("readings", [[], [(0, None)], [(0, 0.0)]])
def test_no_limit_is_made_up(readings: list[tuple[int, float | None]]) -> None:
    unread = Series.of(sensor(GPU, "power-limit", "chip", pace="edges"), readings)
    assert metering.device_settings(launch(recording(unread, uuids={GPU: "gpu-1"}), ON_GPU)) == {}


def test_by_part_takes_the_first_of_two_alike_that_has_a_reading() -> None:
    """As hwmon and AMD SMI both tell the power of one chip."""
    dead = Series.of(sensor(GPU, "power", "chip"), [(0, None), (S, None)])
    first, second = (read(sensor(GPU, "power", "chip"), lambda s, w=w: w) for w in (100.0, 200.0))
    other = read(sensor(GPU, "power", "card"), lambda s: 300.0)
    assert metering.by_part(recording(dead, first, second, other), "power") == {
        (GPU, "chip"): first,
        (GPU, "card"): other,
    }
    assert metering.by_part(recording(dead, other), "energy") == {}
    assert metering.by_part(recording(dead), "power") == {}
