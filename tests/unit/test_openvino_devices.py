"""Devices by name: every spelling, every refusal and its remedy, without hardware."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from backends.openvino import OpenVino, devices
from backends.openvino.copier import BYTES, Copier
from bench.errors import PrerequisiteError, UsageError
from bench.types import Device, Workload
from tests import fakes, scripted_core
from tests.scripted_core import A770, NO_LOADER, ScriptedCore

CASE = fakes.case(Workload(name="pp8", prompt_tokens=8, new_tokens=0), backend="openvino")
ONE, TWO, NONE = ("CPU", "GPU"), ("CPU", "GPU.0", "GPU.1"), ("CPU",)


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the kernel's nodes of GPU and NPU are looked for; there is none."""
    here = {kind: (str(tmp_path), *how) for kind, (_, *how) in devices.NODES.items()}
    monkeypatch.setattr(devices, "NODES", here)
    return tmp_path


@pytest.mark.parametrize(
    ("available", "asked", "named"),
    [
        (NONE, None, ["CPU"]),
        (NONE, "cpu", ["CPU"]),
        (NONE, "CPU.0", ["CPU"]),
        (NONE, "cpu:0", ["CPU"]),
        (ONE, "GPU", ["GPU"]),
        (ONE, "gpu:0", ["GPU"]),
        (ONE, "GPU.0", ["GPU"]),
        (TWO, "GPU", ["GPU.0"]),
        (TWO, "gpu.0", ["GPU.0"]),
        (TWO, "GPU.1", ["GPU.1"]),
        (TWO, "gpu:1", ["GPU.1"]),
        (ONE, "HETERO:GPU,CPU", ["GPU", "CPU"]),
        (ONE, "hetero:gpu+cpu", ["GPU", "CPU"]),
        (TWO, "HETERO:gpu:1,GPU,CPU", ["GPU.1", "GPU.0", "CPU"]),
    ],
)
def test_spellings(available: tuple[str, ...], asked: str | None, named: list[str]) -> None:
    assert devices.resolved(ScriptedCore(*available), asked) == named


@pytest.mark.parametrize(
    "asked",
    ["AUTO", "auto:GPU,CPU", "MULTI:GPU,CPU", "BATCH:GPU", "HETERO", "HETERO:", "HETERO:GPU,", "HETERO:AUTO,CPU"],
)
def test_what_leaves_the_choice_to_openvino_is_refused(asked: str) -> None:
    with pytest.raises(UsageError, match="leaves the choice to OpenVINO") as caught:
        devices.resolved(ScriptedCore(*ONE), asked)
    answer = OpenVino().support(replace(CASE, device=asked))
    assert (answer.ok, answer.reason) == (False, "NEVER") and answer.detail == caught.value.what, (
        "before it is prepared"
    )


@pytest.mark.parametrize(("core", "asked"), [(TWO, "HETERO:GPU,GPU.0"), (NONE, "HETERO:CPU"), (ONE, "HETERO:GPU")])
def test_one_device_is_no_hetero(core: tuple[str, ...], asked: str) -> None:
    """`--device HETERO:GPU,CPU` arrives as two names: the first must not be measured as something else."""
    with pytest.raises(UsageError, match="one device only") as caught:
        devices.resolved(ScriptedCore(*core), asked)
    assert "HETERO:GPU+CPU" in str(caught.value) and not OpenVino().support(replace(CASE, device=asked)).ok


@pytest.mark.parametrize("asked", ["GPU.2", "gpu:7", "GPU.x", "HETERO:CPU,GPU.2"])
def test_an_index_that_is_not_there_names_those_that_are(asked: str) -> None:
    with pytest.raises(PrerequisiteError, match="has no device GPU") as caught:
        devices.resolved(ScriptedCore(*TWO), asked)
    assert caught.value.remedy == "name GPU.0 or GPU.1" and "CPU, GPU.0, GPU.1" in str(caught.value.cause)


@pytest.mark.parametrize("asked", ["CPU.1", "cpu:3"])
def test_there_is_one_cpu(asked: str) -> None:
    with pytest.raises(PrerequisiteError) as caught:
        devices.resolved(ScriptedCore(*ONE), asked)
    assert caught.value.remedy == "name CPU"


@pytest.mark.parametrize("asked", ["nowhere", "97", "0", "TPU.0", "GPU,CPU"])
def test_unknown_names_are_refused(asked: str) -> None:
    with pytest.raises(PrerequisiteError, match="has no device") as caught:
        devices.resolved(ScriptedCore(*ONE), asked)
    assert "present: CPU, GPU" in str(caught.value) and "bench list devices" in str(caught.value.remedy)


@pytest.mark.parametrize(("asked", "driver"), [("GPU", "i915 or xe"), ("GPU.1", "--device"), ("NPU", "intel_vpu")])
def test_no_hardware(nodes: Path, asked: str, driver: str) -> None:
    with pytest.raises(PrerequisiteError, match=rf"sees no {asked[:3]} here: no device in {nodes}") as caught:
        devices.resolved(ScriptedCore(*NONE), asked)
    assert driver in str(caught.value.remedy) and "present: CPU" in str(caught.value.cause)


def test_nothing_at_all(nodes: Path) -> None:
    with pytest.raises(PrerequisiteError, match="present: none"):
        devices.resolved(ScriptedCore(), "GPU")


def test_a_node_that_may_not_be_opened(nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may open everything, so the kernel's answer is scripted too."""
    (nodes / "renderD128").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PrerequisiteError, match="renderD128 may not be opened by this user") as caught:
        devices.resolved(ScriptedCore(*NONE), "GPU")
    assert "usermod -aG render" in str(caught.value.remedy)


def test_no_opencl_loader(nodes: Path) -> None:
    (nodes / "renderD128").touch()
    with pytest.raises(PrerequisiteError) as caught:
        devices.resolved(ScriptedCore(*NONE, gpu_error=NO_LOADER), "GPU")
    assert "libOpenCL.so.1: cannot open shared object file" in str(caught.value)
    assert "core.cpp" not in str(caught.value) and "ocl-icd-libopencl1" in str(caught.value.remedy)


@pytest.mark.parametrize(("asked", "node"), [("GPU", "renderD128"), ("NPU", "accel0")])
def test_a_driver_that_offers_nothing(nodes: Path, asked: str, node: str) -> None:
    (nodes / node).touch()
    with pytest.raises(PrerequisiteError, match=f"{node} is there, but the driver offers no device"):
        devices.resolved(ScriptedCore(*NONE), asked)


def test_present_devices_are_described() -> None:
    found = devices.present(ScriptedCore(*TWO))
    assert [(d.kind, d.index) for d in found] == [("cpu", 0), ("gpu", 0), ("gpu", 1)]
    assert found[0].uuid is None
    assert found[2] == Device(kind="gpu", name=A770, index=1, uuid=scripted_core.UUID, pci="0000:03:00.0")


def test_a_device_that_tells_no_name_keeps_its_own() -> None:
    """The NPU's plugin answers no FULL_DEVICE_NAME where its driver is missing."""
    assert devices.described(ScriptedCore(*NONE), "NPU") == Device(kind="npu", name="NPU")


@pytest.mark.parametrize("device", ["NPU", "npu", "NPU.0", "HETERO:NPU,CPU"])
def test_the_npu_is_not_wired(device: str) -> None:
    answer = OpenVino().support(replace(CASE, device=device))
    assert (answer.ok, answer.reason) == (False, "NOT_WIRED") and "static shapes" in str(answer.detail)


def test_there_are_no_providers() -> None:
    answer = OpenVino().support(replace(CASE, provider="CPUExecutionProvider"))
    assert (answer.ok, answer.reason) == (False, "NEVER") and "--device" in str(answer.detail)


@pytest.mark.parametrize(("asked", "named"), [("GPU", "GPU.0"), ("gpu:1", "GPU.1")])
def test_the_memory_of_a_gpu_is_moved_inside_it(monkeypatch: pytest.MonkeyPatch, asked: str, named: str) -> None:
    core = ScriptedCore(*TWO)
    monkeypatch.setattr(devices, "core", lambda: core)
    mover = OpenVino().mover(replace(CASE, device=asked))
    assert isinstance(mover, Copier) and mover.kind == "gpu"
    assert core.contexts == [named] and core.compiled == [("copy", named, {"INFERENCE_PRECISION_HINT": "f32"})]
    (request,) = core.models[0].requests
    assert [(tensor.device, tensor.bytes) for tensor in request.tensors] == [(named, BYTES)] * 2
    assert mover.moved_bytes == sum(tensor.bytes for tensor in request.tensors)
    mover.move()
    mover.move()
    assert request.calls == ["start_async", "wait"] * 2
    mover.close()
    mover.close()


@pytest.mark.parametrize("asked", [None, "CPU", "HETERO:GPU,CPU"])
def test_what_computes_in_the_hosts_memory_or_in_two_has_no_mover(
    monkeypatch: pytest.MonkeyPatch, asked: str | None
) -> None:
    monkeypatch.setattr(devices, "core", lambda: ScriptedCore(*ONE))
    assert OpenVino().mover(replace(CASE, device=asked)) is None
