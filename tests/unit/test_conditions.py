"""From readings to the conditions of a record, and to what they say against it."""

from __future__ import annotations

from typing import Any

import pytest

from bench import conditions
from bench.collector.contention import Beside
from bench.collector.series import Series
from tests.sensed import CPU, GPU, ON_CPU, ON_GPU, S, launch, read, recording, sensor

GIB, UUIDS = 2.0**30, {GPU: "gpu-1"}


def test_conditions_are_those_of_the_windows() -> None:
    clock = read(sensor(CPU, "clock", "mean"), lambda s: 3e9 if 10 <= s <= 50 else 1e9)
    heat = read(sensor(CPU, "temperature", "chip"), lambda s: 90 if s > 55 else 60)
    slowed = Series.of(sensor(CPU, "throttle-time", "thermal"), [(0, 1.0), (9 * S, 1.0), (51 * S, 1.5)])
    flag = read(sensor(GPU, "throttled", "power-cap"), lambda s: float(20 <= s < 23))
    sensed = launch(recording(clock, heat, slowed, flag), ON_CPU)
    sensed.contention._beside[0] = Beside(others_cores=0.5, steal_ratio=0.0)
    host, cpu, gpu = conditions.of_case(0, sensed)
    assert (host.device, host.others_cores) == ("host", 0.5)
    assert cpu.clock_mean_hz == {"mean": pytest.approx(3e9)} and cpu.temperature_highest_c == {"chip": 60}
    assert cpu.throttle_s == {"thermal": pytest.approx(0.5)}
    assert 0 < gpu.throttled_ratio["power-cap"] < 0.2
    said = conditions.doubts([host, cpu, gpu])
    assert len(said) == 3 and any("0.5 processors" in text for text in said) and any("thermal" in text for text in said)


def test_a_quiet_machine_gives_no_doubt() -> None:
    quiet = launch(recording(read(sensor(CPU, "throttle-time", "thermal"), lambda s: 1.5)), ON_CPU)
    quiet.contention._beside[0] = Beside(others_cores=0.02, steal_ratio=0.0)
    assert conditions.doubts(conditions.of_case(0, quiet)) == []


@pytest.mark.parametrize(
    ("device", "part", "slow_s", "warm"),
    [
        (GPU, "hw-thermal", 5.0, True),
        (GPU, "sw-thermal", 5.0, True),
        (GPU, "gt0-prochot", 5.0, True),
        (GPU, "hw-thermal", 0.2, False),
        (GPU, "power-cap", 20.0, False),
        (GPU, "power-brake", 20.0, False),
        (CPU, "thermal", 20.0, False),
    ],
)
def test_only_heat_of_what_computed_makes_a_case_invalid(device: str, part: str, slow_s: float, warm: bool) -> None:
    """22 s are in the timed samples, which begin at 20 s and at 38 s."""
    flag = read(sensor(device, "throttled", part), lambda s: float(20 <= s < 20 + slow_s))
    sensed = launch(recording(flag, uuids=UUIDS), ON_GPU)
    doubt = conditions.too_warm(0, sensed)
    assert (doubt is not None) is warm, doubt
    assert conditions.doubts(conditions.of_case(0, sensed)), "it is said in any case"
    if warm:
        assert doubt == f"{GPU} was slowed down for {slow_s / 22:.0%} of the time: {part}"


def test_one_flag_in_few_readings_is_not_heat() -> None:
    once = read(sensor(GPU, "throttled", "hw-thermal"), lambda s: float(s == 22), every_s=2.0)
    assert conditions.too_warm(0, launch(recording(once, uuids=UUIDS), ON_GPU)) is None
    twice = read(sensor(GPU, "throttled", "hw-thermal"), lambda s: float(s in (22, 24)), every_s=2.0)
    assert conditions.too_warm(0, launch(recording(twice, uuids=UUIDS), ON_GPU)) is not None


def test_a_counter_of_time_is_believed_before_flags() -> None:
    flag = read(sensor(GPU, "throttled", "hw-thermal"), lambda s: float(20 <= s < 25))
    counter = read(sensor(GPU, "throttle-time", "thermal"), lambda s: 7.0)
    assert conditions.too_warm(0, launch(recording(flag, counter, uuids=UUIDS), ON_GPU)) is None
    slowed = read(sensor(CPU, "throttle-time", "thermal"), lambda s: max(0.0, min(s, 24.0) - 21.0))
    doubt = conditions.too_warm(0, launch(recording(slowed), ON_CPU))
    assert doubt == "cpu:0 was slowed down for 14% of the time: thermal"


def test_heat_is_a_share_of_the_time_that_the_counter_tells_of() -> None:
    """Read at 5 s and at 55 s: 20 s of heat are 40 % of that, though only 22 s were timed."""
    slowed = Series.of(sensor(CPU, "throttle-time", "thermal"), [(5 * S, 1.0), (55 * S, 21.0)])
    assert conditions.too_warm(0, launch(recording(slowed), ON_CPU)) == (
        "cpu:0 was slowed down for 40% of the time: thermal"
    )


def test_heat_in_what_was_not_timed_is_a_doubt_only() -> None:
    flag = read(sensor(GPU, "throttled", "hw-thermal"), lambda s: float(10 <= s < 16))
    hot = launch(recording(flag, uuids=UUIDS), ON_GPU)
    assert conditions.too_warm(0, hot) is None
    assert conditions.doubts(conditions.of_case(0, hot)) == [f"{GPU} was slowed down: hw-thermal"]


def test_of_two_sensors_of_one_thing_the_first_that_can_be_read_counts() -> None:
    dead = Series.of(sensor(GPU, "memory-used", "vram"), [(0, None)])
    alive = read(sensor(GPU, "memory-used", "vram"), lambda s: GIB)
    for series in ((dead, alive), (alive, dead)):
        (found,) = conditions.of_case(0, launch(recording(*series), ON_GPU))
        assert found.memory_highest_bytes == GIB


@pytest.mark.parametrize(
    ("counts", "others"),
    [
        ([(0, 0.0), (9, 1.0), (31, 1.0), (51, 1.0)], 0),
        ([(0, 2.0), (9, 3.0), (31, 3.0), (51, 3.0)], 2),
        ([(0, 0.0), (9, 1.0), (31, 1.0), (51, 4.0)], 3),
        ([(0, 5.0), (9, 1.0), (31, 1.0), (51, 1.0)], 0),
        ([(0, 1.0), (9, 1.0), (31, 1.0), (51, 1.0)], 1),
        ([(0, 0.0), (9, 0.0), (31, 0.0), (51, 0.0)], None),
        ([(0, None), (9, None)], None),
        ([], None),
    ],
)
def test_other_processes_are_those_beside_the_workers(counts: list[tuple[int, Any]], others: int | None) -> None:
    """Read where phases begin and end: the last before the case, those within, the first after it."""
    series = Series.of(sensor(GPU, "processes", "compute"), [(at_s * S, count) for at_s, count in counts])
    quiet = read(sensor(GPU, "temperature", "chip"), lambda s: 50.0)
    (found,) = conditions.of_case(0, launch(recording(series, quiet, uuids=UUIDS), ON_GPU))
    assert found.other_processes == others
    assert bool(conditions.doubts([found])) is bool(others)


def test_processes_on_a_card_that_did_not_compute_are_not_beside_it() -> None:
    series = Series.of(sensor(GPU, "processes", "compute"), [(0, 3.0), (60 * S, 3.0)])
    assert conditions.of_case(0, launch(recording(series), ON_CPU)) == []


def test_errors_during_the_windows_are_told() -> None:
    before = read(sensor(GPU, "errors", "ecc-corrected"), lambda s: 7.0 if s > 5 else 0.0)
    during = read(sensor(GPU, "errors", "pcie-replay"), lambda s: 2.0 if s > 25 else 0.0)
    (found,) = conditions.of_case(0, launch(recording(before, during), ON_GPU))
    assert found.errors == {"ecc-corrected": 0.0, "pcie-replay": 2.0}
    assert conditions.doubts([found]) == [f"errors of {GPU} beside this case: pcie-replay 2"]


def test_memory_of_a_card_at_its_four_moments() -> None:
    """In use by others: 1 GiB; loaded at 8 s: 5; a prefill ends at 40 s with 6; decode reaches 7 at 45 s."""
    steps = ((45, 7.0), (40, 6.0), (8, 5.0), (0, 1.0))
    used = read(sensor(GPU, "memory-used", "card"), lambda s: GIB * next(gib for at_s, gib in steps if s >= at_s))
    told = launch(recording(used), ON_GPU)
    told.memory.loaded_ns = 8 * S
    (found,) = conditions.of_case(0, told)
    moments = (found.memory_before_bytes, found.memory_loaded_bytes, found.memory_prefilled_bytes)
    assert (*moments, found.memory_highest_bytes) == (GIB, 5 * GIB, 6 * GIB, 7 * GIB)


def test_a_reading_long_after_a_moment_is_not_its() -> None:
    used = read(sensor(GPU, "memory-used", "card"), lambda s: GIB, every_s=15.0)
    told = launch(recording(used), ON_GPU)
    told.memory.loaded_ns = 8 * S
    (found,) = conditions.of_case(0, told)
    assert found.memory_loaded_bytes is None and found.memory_prefilled_bytes is None
    assert found.memory_highest_bytes == GIB
