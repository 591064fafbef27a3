"""scripts/gpu_check and scripts/weight_distribution, as far as a machine without an accelerator can execute them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import gpu_steps  # noqa: E402 - the path must be set first


def execute(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_steps_of_a_processor_can_be_read_beforehand(tmp_path: Path) -> None:
    done = execute("gpu_check", "--cpu", "--quick", "--dry-run", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "backend-check cpu" in done.stdout and "--backend cpu" in done.stdout
    assert "weight_distribution" in done.stdout and not (tmp_path / "out").exists()
    assert "cuda: " in done.stderr, "what is not here is told with its reason"


def test_a_typo_names_what_is_known(tmp_path: Path) -> None:
    done = execute("gpu_check", "--backend", "cudaa", "--out", str(tmp_path))
    assert done.returncode == 2 and "cudaa" in done.stderr and "cuda, " in done.stderr.replace("cudaa", "")


def test_an_empty_folder_of_wheels_is_told(tmp_path: Path) -> None:
    done = execute("gpu_check", "--wheels", str(tmp_path), "--out", str(tmp_path / "out"))
    assert done.returncode == 3 and "bench bundle" in done.stderr


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("GPU 0: H200 (UUID: GPU-12345678-1234-1234-1234-123456789abc)", "12345678"),
        ("Serial Number : 1650922012345", "1650922012345"),
        ("| /home/somebody/bench |", "somebody"),
    ],
)
def test_what_tools_say_of_the_owner_is_left_out(monkeypatch: pytest.MonkeyPatch, said: str, left: str) -> None:
    monkeypatch.setattr(gpu_steps, "output", lambda command: said)
    assert left not in gpu_steps.machine(sys.executable)


def test_three_kinds_of_weights_are_compared(tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    quick = ("--rounds", "3", "--seconds", "0.05", "--shape", "256x128", "--rows", "1", "--results", str(kept))
    done = execute("weight_distribution", "cpu", *quick)
    assert done.returncode == 0, done.stderr
    assert "power: " in done.stdout and "_int_mm" in done.stdout
    told = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [each["codes"] for each in told[:6]] == ["zero", "uniform", "gaussian", "uniform", "gaussian", "zero"]
    assert len(told) == 9 and all(each["per_s"] > 0 for each in told)
