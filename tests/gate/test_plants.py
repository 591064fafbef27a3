"""The gate bites: every fault planted into the prepared files makes the records invalid, and the exit code 5."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench import parity
from bench.artifacts.stored_reference import load_reference
from tests.gate import plants
from tests.gate.conftest import Bench, Ended
from tests.gate.plants import NATIVE_ONLY, PLANTS, Plant

Copy = Callable[[str], Bench]


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_a_planted_fault_is_seen(plant: Plant, copied: Copy) -> None:
    bench = copied(plant.model)
    plant.into(bench.prepared(plant.model))
    ended = bench(plant.model)
    assert_invalid(ended)
    assert all("exact certificate: off by" in reason(record) for record in ended.records)
    assert all(record.gate is not None and record.gate.verdict == "failed" for record in ended.records)
    assert not any(record.samples for record in ended.records), "nothing is timed after the gate said no"


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_the_native_gate_alone(plant: Plant, copied: Copy) -> None:
    """Without the certificate: nearly every fault leaves the band, and those that do not are known."""
    bench = copied(plant.model)
    folder, reference = bench.prepared(plant.model), reference_of(bench)
    assert not any(check.reason for check in plants.native(folder, plant.model, reference))
    plant.into(folder)
    seen = [check.reason for check in plants.native(folder, plant.model, reference) if check.reason]
    assert bool(seen) == plant.native
    assert all("another model, or a broken kernel" in text for text in seen)


def test_a_fault_of_the_native_graph_alone_is_seen_by_the_native_gate(copied: Copy) -> None:
    bench = copied(NATIVE_ONLY.model)
    folder = bench.prepared(NATIVE_ONLY.model)
    NATIVE_ONLY.into(folder)
    assert plants.certificate(folder, NATIVE_ONLY.model, reference_of(bench)).reason is None
    ended = bench(NATIVE_ONLY.model)
    assert_invalid(ended)
    for record in ended.records:
        assert "times what a8-g32 predicts" in reason(record)
        assert record.gate is not None and record.gate.error is not None and record.gate.predicted is not None
        assert record.gate.error / record.gate.predicted > parity.HIGH
        assert record.gate.certificate is not None and not record.samples


def test_a_fault_survives_a_second_look(copied: Copy) -> None:
    """A failed certificate is not kept as if it had passed."""
    bench = copied("bite-qwen2")
    PLANTS[1].into(bench.prepared("bite-qwen2"))
    assert_invalid(bench("bite-qwen2"))
    assert_invalid(bench("bite-qwen2"))


@pytest.mark.parametrize("name", ["weights.bin", "native.onnx", "prepared.json"])
def test_an_alteration_that_was_not_sealed_never_reaches_the_gate(name: str, copied: Copy) -> None:
    bench = copied("bite-qwen2")
    path = bench.prepared("bite-qwen2") / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert_prerequisite(bench("bite-qwen2"), name, "is not what was sealed (altered)")


def test_truncated_files_never_reach_the_gate(copied: Copy) -> None:
    bench = copied("bite-qwen2")
    path = bench.prepared("bite-qwen2") / "weights.bin"
    path.write_bytes(path.read_bytes()[:-4096])
    assert_prerequisite(bench("bite-qwen2"), "weights.bin", "(truncated or altered)")


def test_a_moved_cache_is_read_where_it_is(copied: Copy, clean: Bench) -> None:
    """What is checked is what is opened: the copy names the place of the original in its notes."""
    bench = copied("bite-qwen2")
    told = (bench.prepared("bite-qwen2") / "prepared.json").read_text()
    assert str(clean.cache) in told and str(bench.cache) not in told
    assert bench("bite-qwen2").code == 0


def assert_invalid(ended: Ended) -> None:
    assert ended.code == 5, ended.err
    assert len(ended.records) == 2
    assert {record.status for record in ended.records} == {"invalid"}


def assert_prerequisite(ended: Ended, *said: str) -> None:
    assert ended.code == 3, ended.err
    assert "Traceback" not in ended.err
    for record in ended.records:
        assert record.status == "failed" and record.reason is not None and record.reason.code == "prerequisite"
        assert all(text in reason(record) + str(record.reason.cause) or text in ended.err for text in said)
        assert record.reason.remedy
    (line,) = {line.partition(": ")[2].partition(": ")[2] for line in ended.err.splitlines() if "failed: " in line}
    assert all(text in line for text in said)


def reason(record: object) -> str:
    return str(getattr(getattr(record, "reason", None), "what", ""))


def reference_of(bench: Bench) -> plants.Reference:
    (folder,) = bench.cache.glob("artifacts/*/reference")
    return load_reference(Path(folder))
