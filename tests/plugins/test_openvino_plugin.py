"""A real plugin provider: what it leaves to the CPU is found, what it takes whole is proven."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.conformance.models import ARCHS
from bench.results.record import Record
from tests.gate.conftest import toml
from tests.sweeps.conftest import ROOT, Bench, bench

__all__ = ["bench"]

OPENVINO = "OpenVINOExecutionProvider"


def executed(bench: Bench, tmp_path: Path, plugin: str, *words: str) -> tuple[int, Record, str]:
    (tmp_path / "models.toml").write_text(toml("small", ARCHS["qwen2"]))
    common = ("run", "--models", "models.toml", "--model", "small-int8", "--workload", "pp24", "--repetitions", "1")
    ended = bench(*common, "--backend", "onnx", "--provider", "openvino", "--set", f"plugin={plugin}", *words)
    (record,) = ended.records
    return ended.code, record, ended.err


@pytest.mark.parametrize("form", ["opset21 dynamic", "opset21 static"])
def test_a_standard_graph_is_placed_whole(bench: Bench, tmp_path: Path, plugin: str, form: str) -> None:
    dialect, shapes = form.split()
    code, record, said = executed(bench, tmp_path, plugin, "--set", f"dialect={dialect}", "--set", f"shapes={shapes}")
    assert (code, record.status) == (0, "ok"), said
    assert record.facts
    (place,) = record.facts.placement
    assert (place.device, place.matmul_share) == (OPENVINO, 1.0)
    assert record.identity.provider == OPENVINO and record.identity.options["shapes"] == shapes
    assert "no node is on the CPU" in str(record.facts.evidence)


def test_the_contrib_graph_is_caught_as_fallback(bench: Bench, tmp_path: Path, plugin: str) -> None:
    code, record, said = executed(bench, tmp_path, plugin, "--set", "dialect=contrib")
    assert (code, record.status) == (5, "invalid"), said
    assert record.reason and "CPUExecutionProvider executes 3 GroupQueryAttention" in record.reason.what
    assert record.facts
    share = {place.device: place.matmul_share for place in record.facts.placement}
    assert 0 < share["CPUExecutionProvider"] < 0.9 and sum(share.values()) == pytest.approx(1)


@pytest.mark.parametrize("dialect", ["opset21", "opset17"])
def test_numbers_are_right_on_the_plugin(tmp_path: Path, plugin: str, dialect: str) -> None:
    words = [sys.executable, "-m", "tests.plugins.alone", plugin, dialect, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
