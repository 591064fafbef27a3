"""From readings to the energy of a record; every number is one that can be computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from bench import metering
from bench.collector.sensors import Denied, Found
from bench.collector.series import Series
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
