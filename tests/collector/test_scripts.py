"""Scripts that measure with the collector: over what files, and alone."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.collector.locks import held
from bench.collector.sensors import Denied, Found

SCRIPTS = Path(__file__).parents[2] / "scripts"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = SourceFileLoader(name, str(SCRIPTS / name))
    spec = spec_from_loader(loader.name, loader)
    assert spec
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_files_beside_which_the_cost_is_measured_have_all_that_a_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = script("sampled_tree.py", monkeypatch)
    _, files, clients = tree.watched(tree.write(tmp_path))
    read = {}
    for provider in (files, clients):
        found = provider.probe()
        read |= dict(zip((sensor.id for sensor in found.sensors), provider.read(found.sensors), strict=True))
    assert None not in read.values()
    for device, quantities in {
        "cpu:0": {"energy", "clock", "temperature", "throttle-time"},
        "cpu:1": {"energy", "clock", "temperature", "throttle-time"},
        "pci:0000:03:00.0": {"power", "power-limit", "clock", "temperature", "memory-used", "utilization", "processes"},
        "pci:0000:04:00.0": {"energy", "power-limit", "clock", "temperature", "throttled", "processes"},
    }.items():
        assert {name.split("/")[1] for name in read if name.startswith(f"{device}/")} == quantities


def test_weights_are_compared_only_while_nobody_else_measures() -> None:
    command = [sys.executable, str(SCRIPTS / "weight_distribution"), "cpu", "--rounds", "1", "--seconds", "0.01"]
    with held(0, "a test", print):
        running = subprocess.Popen([*command, "--shape", "64x64", "--rows", "1"], stdout=subprocess.PIPE, text=True)
        assert running.stdout and running.stdout.readline().startswith("waits for a test, process ")
    said, _ = running.communicate(timeout=120)
    assert running.returncode == 0 and "gaussian" in said


def test_only_what_denies_energy_is_why_there_is_no_power(monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("weight_distribution", monkeypatch)
    denied = [Denied(what="clocks", why="not shown", of_energy=False), Denied(what="RAPL", why="a virtual machine")]
    meter = module.Meter(SimpleNamespace(found=Found(denied=denied)), module.CPU, module.torch.device("cpu"))
    assert meter.described == "not measured: no sensor tells energy or power of this device (RAPL: a virtual machine)"
