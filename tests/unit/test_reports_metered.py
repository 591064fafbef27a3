"""What a table says of energy, power and memory; every number is one that can be computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from bench.reports import metered
from bench.reports.row import Row
from bench.reports.table import build_table
from bench.results.metered import Condition, Energy, EnergyUse
from bench.results.schema import DeviceRef, Memory, Sample
from tests.records import identity, record

PROCESSOR = DeviceRef(kind="cpu", name="a processor")
CARD = DeviceRef(kind="cuda", name="a card", uuid="GPU-1", pci="0000:03:00.0")
UNPLACED = DeviceRef(kind="cuda", name="a card", uuid="GPU-1")
SECOND = DeviceRef(kind="cuda", name="a card", pci="0000:04:00.0")
AT = "pci:0000:03:00.0"
HOST = Memory(device="host", anon_peak_bytes=100, file_peak_bytes=800)


def row(**changed: Any) -> Row:
    (only,) = build_table([record("pp512+tg4", **changed)]).rows
    return only


def use(phase: str, mean_w: float | None, seconds: float, **more: Any) -> EnergyUse:
    joules = None if mean_w is None else mean_w * seconds
    told = {"device": AT, "part": "card", "counted": True, **more}
    return EnergyUse(**told, phase=phase, mean_w=mean_w, joules=joules, seconds=seconds, tokens=10)


def watts(*uses: EnergyUse, samples: list[Sample] | None = None) -> float | None:
    timed = [Sample(prefill_s=0.05, step_s=[1.0, 0.27])] * 5 if samples is None else samples
    return metered.mean_w(row(energy=Energy(uses=list(uses)), samples=timed))


def test_watts_are_those_of_a_timed_repetition_however_long_the_sensors_needed() -> None:
    expected = pytest.approx((600 * 0.05 + 200 * 1.27) / 1.32)
    assert watts(use("prefill", 600, 5), use("decode", 200, 5)) == expected
    assert watts(use("prefill", 600, 30, own_pass=True), use("decode", 200, 6.6)) == expected


def test_watts_of_parts_add_up_within_a_phase() -> None:
    dram = {"device": "cpu:0", "part": "dram"}
    package = {"device": "cpu:0", "part": "package"}
    both = [use(phase, w, 5, **part) for phase in ("prefill", "decode") for w, part in ((90, package), (10, dram))]
    assert watts(*both, use("decode", 999, 5, counted=False)) == pytest.approx(100)


@pytest.mark.parametrize(
    ("uses", "samples"),
    [
        ([use("prefill", None, 5), use("decode", 200, 5)], None),
        ([use("decode", 200, 5)], None),
        ([use("decode", 200, 5), use("decode", None, 5, part="dram"), use("prefill", 600, 5)], None),
        ([], None),
        ([use("prefill", 600, 5), use("decode", 200, 5)], []),
    ],
)
def test_no_watts_where_a_part_or_a_phase_has_none(uses: list[EnergyUse], samples: list[Sample] | None) -> None:
    assert watts(*uses, samples=samples) is None


def test_a_phase_that_was_not_timed_weighs_nothing() -> None:
    assert watts(use("decode", 200, 5), samples=[Sample(step_s=[0.5])]) == 200


def needed(*devices: DeviceRef, uses: list[EnergyUse] | None = None, **changed: Any) -> float | None:
    energy = Energy(uses=uses or [])
    return metered.memory_bytes(row(who=identity("pp512+tg4", devices=list(devices)), energy=energy, **changed))


def grew(before: float | None, highest: float | None, device: str = AT) -> Condition:
    return Condition(device=device, memory_before_bytes=before, memory_highest_bytes=highest)


def on_card(allocated: int | None = None, grown: int | None = None, device: str = "cuda:0") -> Memory:
    return Memory(device=device, allocator_peak_bytes=allocated, device_delta_bytes=grown)


@pytest.mark.parametrize(
    ("told", "seen", "bytes_"),
    [
        (on_card(5000, 7000), [grew(1000, 7000)], 5000),
        (on_card(None, 7000), [grew(1000, 7500)], 6500),
        (on_card(None, 7000), [grew(None, 7500)], 7000),
        (on_card(None, 7000), [grew(8000, 7500)], 7000),
        (on_card(None, 7000), [grew(1000, 7500, "pci:0000:04:00.0")], 7000),
        (on_card(None, -5), [], None),
        (on_card(None, None), [grew(1000, 7500, "host")], None),
    ],
)
def test_memory_of_a_card_is_never_the_hosts(told: Memory, seen: list[Condition], bytes_: float | None) -> None:
    """llama.cpp, OpenVINO and ONNX Runtime tell no allocator's peak."""
    assert needed(CARD, memory=[HOST, told], conditions=seen) == bytes_


def test_a_card_without_an_address_is_the_one_that_was_counted() -> None:
    seen = {"memory": [HOST], "conditions": [grew(1000, 7500), grew(0, 9000, "pci:0000:04:00.0")]}
    assert needed(
        UNPLACED, uses=[use("decode", 200, 5), use("decode", 9, 5, device="wall", counted=False)], **seen
    ) == (6500)
    assert needed(UNPLACED, **seen) is None


def test_memory_of_several_cards_is_known_of_all_or_not_at_all() -> None:
    seen = [grew(1000, 7500), grew(0, 500, "pci:0000:04:00.0")]
    assert needed(CARD, SECOND, PROCESSOR, memory=[HOST], conditions=seen) == 7000
    assert needed(CARD, SECOND, memory=[HOST], conditions=seen[:1]) is None
    by_runtime = [HOST, on_card(None, 10, "cpu"), on_card(None, 6000), on_card(None, 500)]
    assert needed(CARD, SECOND, memory=by_runtime) == 6500
    assert needed(CARD, SECOND, memory=[*by_runtime, on_card()]) is None


def test_where_processors_computed_it_is_the_workers_with_its_mapped_files() -> None:
    assert needed(PROCESSOR, memory=[HOST, on_card(None, 5, "cpu")]) == 900
    assert needed(PROCESSOR, memory=[]) is None
    assert needed(memory=[HOST]) is None, "nobody knows what computed"
