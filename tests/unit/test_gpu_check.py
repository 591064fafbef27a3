"""scripts/gpu_check and scripts/weight_distribution, as far as a machine without an accelerator can execute them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backends.pytorch.kinds import CPU, KINDS
from bench.collector.energy import Window
from bench.collector.sensors import Denied, Found, Sensor
from tests import standin

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
    assert "power: not measured: " in done.stdout and "BENCH_SENSORS=off" in done.stdout and "_int_mm" in done.stdout
    told = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [each["codes"] for each in told[:6]] == ["zero", "uniform", "gaussian", "uniform", "gaussian", "zero"]
    assert len(told) == 9 and all(each["per_s"] > 0 and each["power_w"] is None for each in told)


S = 10**9
CARD, OTHER = "pci:0000:3b:00.0", "pci:0000:5e:00.0"
POWERS_W = {
    ("cpu:0", "package"): 100,
    ("cpu:0", "dram"): 10,
    ("cpu:1", "package"): 90,
    ("platform", "psys"): 400,
    (OTHER, "card"): 70,
    (CARD, "card"): 300,
    (CARD, "pkg"): 250,
}
"""Of a made-up machine, whose counters the sampler has read five times a second: psys lies around, pkg within."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """scripts/weight_distribution as a module; nothing is waited for."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = SourceFileLoader("weight_distribution", str(ROOT / "scripts/weight_distribution"))
    spec = spec_from_loader(loader.name, loader)
    assert spec
    module = module_from_spec(spec)
    loader.exec_module(module)
    monkeypatch.setattr(module, "TAIL_S", 0)
    return module


def sampled(folder: Path, **found: Any) -> Any:
    """A sampler that has read a minute of `POWERS_W`, in the form of bench/collector/sampler.py."""
    sensors = [
        Sensor(device=device, quantity="energy", part=part, kind="counter", source=f"made up {part}")
        for device, part in POWERS_W
    ]
    told = Found(sensors=sensors, **found)
    lines: list[dict[str, Any]] = [{"found": asdict(told)}]
    for at_ns in range(0, 60 * S, S // 5):
        joules = {str(index): watts * at_ns / S for index, watts in enumerate(POWERS_W.values())}
        lines.append({"at_ns": [at_ns, at_ns], "values": joules})
    (folder / "sensors.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return SimpleNamespace(found=told, path=folder / "sensors.jsonl")


def test_a_processors_power_is_that_of_its_packages_and_their_memory(script: Any, tmp_path: Path) -> None:
    meter = script.Meter(sampled(tmp_path), CPU, torch.device("cpu"))
    assert meter.described == "made up package, made up dram, made up package"
    assert meter.powers_w([Window(10 * S, 12 * S), Window(20 * S, 22 * S)]) == [pytest.approx(200)] * 2
    assert meter.reason is None


@pytest.mark.parametrize("kind", ["cuda", "rocm"])
def test_a_card_is_known_by_its_address(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """By the numbers that torch/numa/binding.py reads. AMD's tools have told uuids that HIP has not (ROCm/rocm-systems
    #3614), so that these cards would not be found by theirs.
    """
    plugged = [{"pci_bus_id": 0x5E}, {"pci_bus_id": 0x3B}]
    standin.offer(
        monkeypatch,
        kind,
        get_device_properties=lambda index: SimpleNamespace(
            uuid=standin.UUID, gcnArchName="", pci_domain_id=0, pci_device_id=0, **plugged[index]
        ),
    )
    meter = script.Meter(sampled(tmp_path), KINDS[kind], torch.device("cuda", 1))
    assert meter.powers_w([Window(10 * S, 12 * S)]) == [pytest.approx(300)]


def test_a_card_without_an_address_is_known_by_its_uuid(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    standin.offer(monkeypatch, "xpu")
    sampler = sampled(tmp_path, uuids={OTHER: standin.UUID.lower()})
    meter = script.Meter(sampler, KINDS["xpu"], torch.device("xpu", 0))
    assert meter.powers_w([Window(10 * S, 12 * S)]) == [pytest.approx(70)]


def test_sensors_of_others_are_not_taken_for_a_cards(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    standin.offer(monkeypatch, "xpu")
    denied = [Denied(what="a card", why="its driver is not loaded")]
    meter = script.Meter(sampled(tmp_path, denied=denied), KINDS["xpu"], torch.device("xpu", 0))
    assert meter.described.startswith("not measured: ") and "a card: its driver is not loaded" in meter.described
    assert meter.powers_w([Window(10 * S, 12 * S)]) == [None]


def test_a_stretch_that_the_readings_do_not_hold_says_why(script: Any, tmp_path: Path) -> None:
    meter = script.Meter(sampled(tmp_path), CPU, torch.device("cpu"))
    short, held, late = meter.powers_w([Window(S, S + S // 20), Window(10 * S, 12 * S), Window(59 * S, 62 * S)])
    assert (short, held, late) == (None, pytest.approx(200), None)
    assert "cpu:0 package: window too short" in meter.reason
    meter.powers_w([Window(59 * S, 62 * S)])
    assert "readings end" in meter.reason


def test_a_sampler_that_wrote_nothing_leaves_no_power(script: Any, tmp_path: Path) -> None:
    sampler = sampled(tmp_path)
    meter = script.Meter(sampler, CPU, torch.device("cpu"))
    sampler.path.unlink()
    assert meter.powers_w([Window(10 * S, 12 * S)]) == [None] and meter.reason == "no sensor could be read"
