"""Sessions on execution providers that this machine has not: a fake list of providers, devices and refusals."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends.onnx import Ascend, Onnx, plugins, providers
from backends.onnx.known import CPU
from bench.attest import misplaced
from bench.errors import BenchError, CaseError, PrerequisiteError, UsageError
from bench.plan import parse_options
from bench.types import Case, Device, LoadGroup, Prepared
from tests.provided import Options, Runtime, entry
from tests.unit.test_onnx_adapter import CASE, prepared_as

CUDA, OPENVINO, MUSA = "CUDAExecutionProvider", "OpenVINOExecutionProvider", "MUSAExecutionProvider"
FALLBACK = RuntimeError(
    "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the default CPU EP, but "
    "fallback to CPU EP has been explicitly disabled by the user."
)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    fake = Runtime(entries=[entry(CPU, "cpu")])
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: fake.available)
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: fake.entries)
    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", fake.register)
    monkeypatch.setattr(onnxruntime, "InferenceSession", fake.session)
    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    monkeypatch.setattr(plugins, "_installed", {})
    monkeypatch.setattr(plugins, "_libraries", set())
    monkeypatch.setattr(plugins.pkgutil, "iter_modules", list)
    return fake


def asked_for(provider: str, device: str | None = None, fidelity: Any = "native", **options: str) -> Case:
    raw = {name.replace("ep_", "ep.", 1): value for name, value in options.items()}
    options_of = parse_options("onnx", Onnx.options, raw, provider)
    return replace(CASE, provider=provider, device=device, fidelity=fidelity, options=options_of)


def opened(provider: str, device: str | None = None, **changes: Any) -> providers.Opened:
    return providers.open_session(b"graph", asked_for(provider, device, **changes))


def refused(provider: str, device: str | None = None, **changes: Any) -> BenchError:
    with pytest.raises(BenchError) as caught:
        opened(provider, device, **changes)
    assert "\n" not in str(caught.value)
    return caught.value


def plugin_package(folder: Path, name: str, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with a plugin, the only one there is."""
    (folder / f"{name}.py").write_text(body)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(plugins.pkgutil, "iter_modules", lambda: [SimpleNamespace(name=name)])


def test_the_cpu_alone_is_asked_with_fallback(runtime: Runtime) -> None:
    session = opened(CPU)
    assert (session.fallback_disabled, session.plugin, dict(session.options)) == (None, None, {})
    assert runtime.last["providers"] == [CPU] and runtime.last["fallback"] == 0
    assert providers.NO_FALLBACK not in runtime.last["config"] and not session.evidence
    exact = opened(CPU, fidelity="exact")
    assert runtime.last["config"]["session.qdq_matmulnbits_accuracy_level"] == "0"
    assert [told.claim for told in exact.evidence] == ["session.qdq_matmulnbits_accuracy_level=0"]


def test_a_built_in_provider_of_older_design_is_told_its_device(runtime: Runtime) -> None:
    runtime.available.append(CUDA)
    session = opened(CUDA, "gpu:1", ep_gpu_mem_limit="9")
    given = {"device_id": "1", "gpu_mem_limit": "9"}
    assert runtime.last["providers"] == [(CUDA, given)] and runtime.last["config"][providers.NO_FALLBACK] == "1"
    assert session.device == Device(kind=CUDA, name=CUDA, index=1) and session.fallback_disabled
    assert {told.claim for told in session.evidence} == {
        "created with it: no node is on the CPU",
        "device_id=1, gpu_mem_limit=9",
    }
    assert opened(CUDA, ep_device_id="2").device.index == 2


def test_what_stays_on_the_cpu_is_left_to_the_facts(runtime: Runtime) -> None:
    """A session that is refused for that reason alone is created again, with fallback, and says so."""
    runtime.available.append(CUDA)
    runtime.refuses = [FALLBACK]
    session = opened(CUDA)
    assert session.fallback_disabled is False and len(runtime.asked) == 2
    assert providers.NO_FALLBACK not in runtime.last["config"]
    assert [told.claim for told in session.evidence] == ["refused with it, for nodes stay on the CPU; created without"]
    runtime.refuses = [RuntimeError("no kernel image"), None]
    with pytest.raises(RuntimeError, match="no kernel image"):
        opened(CUDA)
    assert len(runtime.asked) == 3, "another refusal is no reason to try again"


def test_a_provider_that_does_not_start_is_refused(runtime: Runtime) -> None:
    runtime.available.append(CUDA)
    runtime.starts = False
    error = refused(CUDA)
    assert isinstance(error, PrerequisiteError) and "CUDAExecutionProvider did not start" in str(error)


def test_a_plugin_is_asked_by_its_device(runtime: Runtime) -> None:
    runtime.entries += [
        entry(OPENVINO, "cpu", "/lib/openvino.so"),
        entry(OPENVINO, "gpu", "/lib/openvino.so", pci_bus_id="0000:03:00.0"),
        entry(OPENVINO, "gpu", "/lib/openvino.so"),
    ]
    runtime.available.append(OPENVINO)  # as the runtime lists it once it is registered
    session = opened(OPENVINO, "gpu:1", threads="3")
    assert runtime.last["devices"] == [runtime.entries[3]] and runtime.last["providers"] is None
    assert runtime.last["given"] == {"load_config": '{"CPU": {"INFERENCE_NUM_THREADS": "3"}}'}
    assert session.device == Device(kind="gpu", name="Maker gpu", index=1)
    assert opened(OPENVINO, "gpu").device.pci == "0000:03:00.0"
    assert opened(OPENVINO, "1").device.kind == "gpu"
    assert session.plugin == "openvino.so 1.2"
    assert json.loads(opened(OPENVINO, fidelity="exact").options["load_config"])["CPU"].keys() == {
        "INFERENCE_NUM_THREADS",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE",
        "INFERENCE_PRECISION_HINT",
    }
    for device, told in (("npu", "tells of none"), ("gpu:2", "tells of 2"), ("3", "tells of 3")):
        assert told in str(refused(OPENVINO, device)) and "has no device" in str(refused(OPENVINO, device))


def test_one_entry_for_all_cards_is_told_the_index(runtime: Runtime) -> None:
    """Moore Threads' plugin lists one entry, which it hangs on the host's processor."""
    runtime.entries.append(entry(MUSA, "cpu", "/lib/musa.so"))
    session = opened(MUSA, "2")
    assert runtime.last["given"] == {"device_id": "2"}
    assert session.device == Device(kind="musa", name="Vendor musa", index=2)
    assert providers.devices(MUSA) == (Device(kind="musa", name="Vendor musa"),)


def test_shapes_are_fixed_by_name(runtime: Runtime) -> None:
    providers.open_session(Path("native.onnx"), asked_for(CPU), {"batch": 1, "n": 4})
    assert runtime.last["dims"] == {"batch": 1, "n": 4} and runtime.last["graph"] == "native.onnx"


def test_an_option_that_is_refused_is_one_line(runtime: Runtime) -> None:
    runtime.available.append(CUDA)
    at = "/src/ep.cc:71 Create() Error creating execution provider: [ONNXRuntimeError] : 2 : INVALID_ARGUMENT : "
    runtime.refuses = [RuntimeError(at + 'Unknown provider option: "speed".\n')]
    error = refused(CUDA, ep_speed="11", ep_gpu_mem_limit="9")
    assert isinstance(error, CaseError) and error.phase == "open"
    assert str(error).startswith(f'{CUDA} refuses its options: speed=11 (Unknown provider option: "speed".)')
    assert str(error).endswith("--set ep.speed=")
    runtime.refuses = [RuntimeError("Invalid device ID: 7, must be between 0 (inclusive) and 2 (exclusive).")]
    assert "device_id=7 (Invalid device ID: 7" in str(refused(CUDA, "7"))


def test_what_is_missing_names_what_is_there_and_what_brings_it(runtime: Runtime) -> None:
    assert "(present: CPUExecutionProvider); pip install onnxruntime-gpu" in str(refused(CUDA))
    assert "registry.mthreads.com" in str(refused(MUSA))
    typo = str(refused("OpenVINOExecutionProvidr"))
    assert "nearest known: OpenVINOExecutionProvider" in typo and "--set plugin=PATH" in typo


def test_an_installed_plugin_without_a_device_says_so(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f"get_ep_name = lambda: {OPENVINO!r}\nget_library_path = lambda: '/lib.so'\n"
    plugin_package(tmp_path, "onnxruntime_ep_nodevice", body, monkeypatch)
    error = refused(OPENVINO)
    assert f"{OPENVINO} cannot be used here (onnxruntime_ep_nodevice is there and offers no device" in str(error)
    assert "only where that is Intel's" in str(error) and "pip install" not in str(error)
    assert OPENVINO in Onnx().probe().unusable


def test_a_broken_plugin_is_named(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin_package(tmp_path, "onnxruntime_ep_broken", "raise OSError('libvendor.so is missing')", monkeypatch)
    broken = "onnxruntime_ep_broken is broken: OSError: libvendor.so is missing"
    assert broken in str(refused("brokenExecutionProvider")) and broken in str(refused(CUDA))
    assert opened(CPU).session and Onnx().probe().ok, "it hides no other"


def test_a_plugin_comes_from_a_library_by_path(runtime: Runtime, tmp_path: Path) -> None:
    library, other = str(tmp_path / "lib.so"), str(tmp_path / "other.so")
    for path in (library, other):
        Path(path).touch()
    runtime.entries.append(entry(OPENVINO, "cpu"))
    runtime.brings = lambda name, path: [entry(name, "npu", path)] if path == library else []
    session = opened(OPENVINO, plugin=library)
    assert runtime.last["devices"] == [runtime.entries[-1]] and session.device.kind == "npu"
    assert session.plugin == "lib.so 1.2"
    opened(OPENVINO, plugin=library)
    assert len(runtime.entries) == 3, "registered once"
    runtime.entries[-1].ep_name = "Other"
    assert "it brings Other); --provider Other" in str(refused(OPENVINO, plugin=library))
    assert "other.so is there and offers no device here" in str(refused(OPENVINO, plugin=other))
    gone = refused(OPENVINO, plugin=str(tmp_path / "gone.so"))
    assert isinstance(gone, PrerequisiteError) and "option plugin: there is no file" in str(gone)


@pytest.mark.parametrize(("name", "text"), [("text.so", "words"), ("empty.so", "")])
def test_a_file_that_is_no_library_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    error = refused("MoonExecutionProvider", plugin=str(tmp_path / name))
    assert isinstance(error, PrerequisiteError) and "cannot be loaded as a plugin" in str(error) and error.cause


def test_a_library_that_is_no_plugin_is_refused() -> None:
    library = next(Path(np.__file__).parent.rglob("*.so"))
    assert "exports no CreateEpFactories" in str(refused("MoonExecutionProvider", plugin=str(library)))


def test_devices_of_any_plugin_are_told(runtime: Runtime) -> None:
    runtime.entries += [
        SimpleNamespace(ep_name="X", device=SimpleNamespace(type=7)),
        entry("X", "tpu", Description="T"),
    ]
    assert [(found.kind, found.name, found.index) for found in providers.devices("X")] == [
        ("7", "7", 0),
        ("tpu", "T", 1),
    ]


@pytest.mark.parametrize(
    ("memory", "kind", "told"),
    [
        ("Cpu", "cpu", "the provider's own memory"),
        ("OpenVINO_shared_CPU", "cpu", "no name for OpenVINO_shared_CPU"),
        ("Cuda", "cuda", "buffers in Cuda memory of device 1"),
        ("Cann", "cpu", "none can be made in Cann memory: no allocator"),
        ("Strange", "cpu", "host buffers"),
    ],
)
def test_the_cache_lies_where_python_can_allocate(
    monkeypatch: pytest.MonkeyPatch, memory: str, kind: str, told: str
) -> None:
    def allocate(shape: Any, dtype: Any, device: str, index: int) -> None:
        if device != "cuda":
            raise RuntimeError("no allocator")

    value = SimpleNamespace(ortvalue_from_shape_and_type=allocate)
    monkeypatch.setattr(onnxruntime, "OrtValue", value)
    infos = [SimpleNamespace(name="Cpu", device_id=0), SimpleNamespace(name=memory, device_id=1)]
    session = SimpleNamespace(
        get_inputs=lambda: [SimpleNamespace(name="input_ids"), SimpleNamespace(name="past.0.key")],
        get_input_memory_infos=lambda: infos,
    )
    found = providers.kv_memory(session)
    assert (found.kind, found.index) == (kind, 1 if kind == "cuda" else 0) and told in found.told


def test_a_preset_is_there_with_its_provider_alone(runtime: Runtime) -> None:
    absent = Ascend().probe()
    assert not absent.ok and "has no CANNExecutionProvider" in str(absent.reason) and not absent.devices
    assert absent.remedy == "pip install onnxruntime-cann 'onnx>=1.21'"
    runtime.available.append("CANNExecutionProvider")
    present = Ascend().probe()
    assert present.ok and present.providers == ("CANNExecutionProvider",) and Onnx().probe().devices
    asked = replace(asked_for("CANNExecutionProvider"), provider=None)
    with pytest.raises(CaseError):  # what is in the place of a session has no inputs
        Ascend().open(LoadGroup(cases=(asked,)), Prepared(path="/nowhere", files=(), notes={"arch": asdict(CASE.arch)}))
    assert runtime.last["providers"] == [("CANNExecutionProvider", {"precision_mode": "must_keep_origin_dtype"})]


def test_with_the_runtime_itself() -> None:
    """A serialized graph on the CPU: its shapes fixed, its provider's list of devices, and refusals."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    weight = numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    graph = helper.make_graph(nodes, "small", inputs, outputs, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    case = asked_for(CPU, threads="1", fidelity="exact")
    made = providers.open_session(model, case, {"n": 3})
    assert made.session.get_inputs()[0].shape == [3, 2] and made.device.kind == "cpu"
    assert made.session.run(None, {"x": np.ones((3, 2), np.float32)})[0].shape == (3, 2)
    for device in ("cpu", "cpu:0", "0"):
        assert providers.open_session(model, replace(case, device=device)).device.index == 0
    for device in ("1", "cpu:1", "gpu"):
        with pytest.raises(PrerequisiteError, match="has no device"):
            providers.open_session(model, replace(case, device=device))
    with pytest.raises(UsageError, match="not understood"):
        providers.open_session(model, replace(case, device="gpu:first"))


def test_a_provider_that_takes_no_node_is_told(tmp_path: Path) -> None:
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this build of ONNX Runtime has no provider that takes no node")
    prepared = prepared_as(tmp_path)
    session = Onnx().open(LoadGroup(cases=(asked_for("AzureExecutionProvider"),)), prepared)
    reason = misplaced(session.facts())
    assert reason and "CPUExecutionProvider executes" in reason
    assert any("nodes stay on the CPU" in told.claim for told in session.facts().evidence)
