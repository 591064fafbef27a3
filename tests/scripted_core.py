"""An `openvino.Core` without hardware: it answers as it is told to, and each answer names where it was seen.

[wheel] openvino 2026.4.1 itself: its CPU plugin, and its GPU and NPU plugins on a machine without such a device
[source] openvinotoolkit/openvino, by file and function
[arc] logs of owners: hello_query_device of an Arc A770 (OpenVINO 2024.3); Core of an Arc Pro B60 beside an A770
      (2026.4.0); the profile of a language model on an Arc, by layer type and kernel
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino as ov

from bench.types import Float32

A770, B60 = "Intel(R) Arc(TM) A770 Graphics (dGPU)", "Intel(R) Arc(TM) Pro B60 Graphics (dGPU)"
"""[arc] FULL_DEVICE_NAME."""
UUID = "8680a056080000000300000000000000"
"""[arc] DEVICE_UUID of the A770."""
PCI = {"domain": 0, "bus": 3, "device": 0, "function": 0}
"""[source] ov::device::PCIInfo, in the form that its Python binding gives it; the place is the one in the UUID."""

CPU_KNOWS = (
    "SUPPORTED_PROPERTIES", "FULL_DEVICE_NAME", "INFERENCE_NUM_THREADS", "INFERENCE_PRECISION_HINT",
    "ENABLE_CPU_PINNING", "DYNAMIC_QUANTIZATION_GROUP_SIZE", "KV_CACHE_PRECISION", "WEIGHTS_PATH",
)  # fmt: skip
"""[wheel] Core.get_property('CPU', 'SUPPORTED_PROPERTIES'), shortened; there is no CACHE_DIR and no DEVICE_UUID."""
GPU_KNOWS = (
    "SUPPORTED_PROPERTIES", "AVAILABLE_DEVICES", "FULL_DEVICE_NAME", "DEVICE_UUID", "GPU_MEMORY_STATISTICS",
    "CACHE_DIR", "CACHE_MODE", "INFERENCE_PRECISION_HINT", "ENABLE_CPU_PINNING", "DYNAMIC_QUANTIZATION_GROUP_SIZE",
    "WEIGHTS_PATH", "KV_CACHE_PRECISION",
)  # fmt: skip
"""[wheel] Core.get_property('GPU', 'SUPPORTED_PROPERTIES'), shortened; there is no INFERENCE_NUM_THREADS."""

NO_LOADER = (
    "Exception from src/inference/src/cpp/core.cpp:268:\n"
    'Cannot load library "/opt/openvino/libs/libopenvino_intel_gpu_plugin.so": libOpenCL.so.1: cannot open shared '
    "object file: No such file or directory\n"
)
"""[wheel] Any property of GPU without an OpenCL loader."""
NO_DEVICE = (
    "Exception from src/inference/src/cpp/core.cpp:268:\nException from src/inference/src/dev/plugin.cpp:112:\n"
    "Check '!m_device_map.empty()' failed at src/plugins/intel_gpu/src/plugin/plugin.cpp:559:\n"
    "[GPU] Can't get {name} property as no supported devices found or an error happened during devices query.\n"
    "[GPU] Please check OpenVINO documentation for GPU drivers setup guide.\n"
)
"""[wheel] A property of GPU with the loader and no device behind it; AVAILABLE_DEVICES is [] then."""
NOT_REGISTERED = (
    "Exception from src/inference/src/cpp/core.cpp:268:\nException from src/inference/src/dev/core_impl.cpp:706:\n"
    'Device with "{name}" name is not registered in the OpenVINO Runtime\n'
)
"""[wheel] Any property of a device that OpenVINO has never heard of."""
UNSUPPORTED = (
    "Exception from src/inference/src/cpp/compiled_model.cpp:140:\n"
    "Exception from src/plugins/intel_cpu/src/compiled_model.cpp:420:\nUnsupported property: {name}\n"
)
"""[wheel] CompiledModel.get_property of a property that the plugin does not answer."""

PER_TOKEN = 2**64 - 1
"""[source] options.inl: the largest DYNAMIC_QUANTIZATION_GROUP_SIZE, one group a token; 0 and 32 occur too."""
THRESHOLD = 64
"""[source] options.inl, dynamic_quantization_threshold; dynamic_quantize.cpp, dynamic_quantize_inst: no quantization up
to and with so many rows, batch × tokens."""
HELD = {"unknown": 0, "cl_mem": 4096, "usm_host": 1 << 20, "usm_shared": 0, "usm_device": 1 << 24}
"""[source] engine.cpp, engine::get_memory_statistics: bytes held now by kind of allocation. [arc] {} before any."""


class Gpu:
    """What a GPU answers, and how its compiled model behaves. Every number can be changed by a test."""

    name = A770
    precision = "f16"
    """[arc] INFERENCE_PRECISION_HINT of both cards; [source] options.inl."""
    kv_cache = "f16"
    """[source] execution_config.cpp, apply_model_specific_options: with XMX the inference precision, without it i8."""
    group = PER_TOKEN
    executes: tuple[str, ...] = ("GPU.0",)
    """[source] compiled_model.cpp: EXECUTION_DEVICES is the context's name, which is numbered even for a single GPU.
    [arc] benchmark_app on an A770: 'Execution Devices: [ GPU.1 ]'."""
    held: Mapping[str, int] = HELD
    loaded_from_cache = False
    not_kept: Mapping[str, str] = {}
    """Properties that are taken and have another effective value, as the CPU's INFERENCE_PRECISION_HINT [wheel]."""


def element(kind: str) -> Any:
    """[wheel] What a property of an element type is in Python: ov.Type, written like f16."""
    return getattr(ov.Type, kind)


def rounded(inputs: Float32) -> Float32:
    """[source] dynamic_quantize.cpp: f16 up to THRESHOLD rows, above it int8 with one scale a row."""
    halves = inputs.astype(np.float16).astype(np.float32)
    if len(inputs) <= THRESHOLD:
        return halves
    scale = np.abs(halves).max(axis=-1, keepdims=True) / np.float32(127)
    codes: Float32 = np.rint(halves / scale) * scale
    return codes


def gpu_layers(rows: int) -> list[dict[str, str]]:
    """[source] graph.cpp, Graph::get_runtime_model: layerType, primitiveType and runtimePrecision of each primitive;
    types without a name there keep the plugin's own (read_value, kv_cache). [arc] kernels, where one is named."""
    kind = "i8" if rows > THRESHOLD else "f16"
    product = ("FullyConnected", f"jit:gemm:any__{kind}", kind)
    found = [
        ("Input", "undef", "i64"), ("Gather", "undef", "f16"), ("rms", "rms_gpu_bfyx_opt__f16", "f16"),
        ("read_value", "undef", "f16"), ("kv_cache", "undef", "f16"),
        ("scaled_dot_product_attention", "ocl::sdpa::opt__f16", "f16"), product, product, ("Reshape", "undef", "f16"),
        ("Result", "undef", "f32"),
    ]  # fmt: skip
    if rows > THRESHOLD:
        found.append(("dynamic_quantize", "dynamic_quantize_gpu_opt__i8", "i8"))
    return [{"layerType": kind, "primitiveType": kernel, "runtimePrecision": number} for kind, kernel, number in found]


class ScriptedCore:
    """Some devices of `available`, which is what Core.available_devices tells: [wheel] ["CPU"]; [arc] with one GPU
    ["CPU", "GPU"], with two ["CPU", "GPU.0", "GPU.1"]. `compiled` keeps what was asked of compile_model."""

    def __init__(self, *available: str, gpu: type[Gpu] = Gpu, gpu_error: str | None = None):
        self.available_devices = list(available)
        self.gpu, self._gpu_error = gpu, gpu_error
        self.compiled: list[tuple[str, str, dict[str, Any]]] = []
        self.models: list[CompiledByGpu] = []
        self.contexts: list[str] = []

    def get_property(self, device: str, name: str) -> Any:
        kind = device.partition(".")[0]
        if kind not in ("CPU", "GPU", "NPU"):
            raise RuntimeError(NOT_REGISTERED.format(name=device))
        if device not in self.available_devices and f"{device}.0" not in self.available_devices:
            return self._absent(kind, name)
        answers = {
            "SUPPORTED_PROPERTIES": dict.fromkeys(CPU_KNOWS if kind == "CPU" else GPU_KNOWS, "RO"),
            "FULL_DEVICE_NAME": "AMD EPYC" if kind == "CPU" else self.gpu.name,
        }
        if kind == "GPU":
            answers |= {
                "DEVICE_UUID": UUID,
                "DEVICE_PCI_INFO": PCI,
                "GPU_MEMORY_STATISTICS": dict(self.gpu.held if self.models else {}),
            }
        if name not in answers:
            raise RuntimeError(UNSUPPORTED.format(name=name))
        return answers[name]

    def _absent(self, kind: str, name: str) -> list[str]:
        if self._gpu_error is not None and kind == "GPU":
            raise RuntimeError(self._gpu_error)
        if name != "AVAILABLE_DEVICES":
            raise RuntimeError(NO_DEVICE.format(name=name))
        return []

    def read_model(self, path: Path) -> Any:
        return ov.Core().read_model(path)

    def compile_model(self, model: Any, device: str, properties: dict[str, Any]) -> Any:
        self.compiled.append((model.get_friendly_name(), device, properties))
        if model.get_friendly_name() == "product":
            return _product(model)
        self.models.append(CompiledByGpu(self.gpu, device, properties))
        return self.models[-1]

    def get_default_context(self, device: str) -> Any:
        self.contexts.append(device)
        return SimpleNamespace(create_tensor=lambda kind, shape, properties: RemoteTensor(device, kind, shape))


def _product(model: Any) -> Callable[[list[Float32]], list[Float32]]:
    """A product as the GPU does it: its inputs rounded, the rest exact."""
    exact = ov.Core().compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    )
    return lambda inputs: [exact([rounded(inputs[0])])[0]]


class CompiledByGpu:
    """A compiled model that computes nothing and tells everything."""

    def __init__(self, gpu: type[Gpu], device: str, properties: dict[str, Any]):
        own = {**properties.get("DEVICE_PROPERTIES", {}).get("GPU", properties), **gpu.not_kept}
        self._answers: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": element(own.get("INFERENCE_PRECISION_HINT", gpu.precision)),
            "KV_CACHE_PRECISION": element(own.get("KV_CACHE_PRECISION", gpu.kv_cache)),
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": int(own.get("DYNAMIC_QUANTIZATION_GROUP_SIZE", gpu.group)),
            "LOADED_FROM_CACHE": gpu.loaded_from_cache,
            # [source] compiled_model.cpp: KV_CACHE_PRECISION and LOADED_FROM_CACHE are answered but not listed
            "SUPPORTED_PROPERTIES": ["INFERENCE_PRECISION_HINT", "DYNAMIC_QUANTIZATION_GROUP_SIZE"],
        }
        if device.startswith("HETERO"):
            # [source] hetero/compiled_model.cpp: by device, and of each only what its SUPPORTED_PROPERTIES list
            listed = {name: self._answers[name] for name in self._answers["SUPPORTED_PROPERTIES"]}
            self._answers = {"DEVICE_PROPERTIES": {"CPU": {"INFERENCE_NUM_THREADS": 2}, "GPU": listed}}
        self._answers["EXECUTION_DEVICES"] = list(gpu.executes)
        self.rows = 0
        self.requests: list[Request] = []

    def get_property(self, name: str) -> Any:
        if name not in self._answers:
            raise RuntimeError(UNSUPPORTED.format(name=name))
        return self._answers[name]

    def create_infer_request(self) -> Request:
        self.requests.append(Request(self))
        return self.requests[-1]

    def get_runtime_model(self) -> Any:
        nodes = [{key: ov.OVAny(value) for key, value in layer.items()} for layer in gpu_layers(self.rows)]
        ordered = [SimpleNamespace(get_rt_info=lambda node=node: node) for node in nodes]
        return SimpleNamespace(get_ordered_ops=lambda: ordered)


class Request:
    """Counts rows and calls; executes nothing."""

    def __init__(self, compiled: CompiledByGpu):
        self._compiled = compiled
        self.tensors: list[RemoteTensor] = []
        self.calls: list[str] = []

    def infer(self, inputs: dict[str, Any], share_inputs: bool) -> None:
        self._compiled.rows = inputs["input_ids"].size

    def set_input_tensor(self, tensor: RemoteTensor) -> None:
        self.tensors.append(tensor)

    set_output_tensor = set_input_tensor

    def start_async(self) -> None:
        self.calls.append("start_async")

    def wait(self) -> None:
        self.calls.append("wait")


class RemoteTensor:
    """A tensor in the memory of `device`."""

    def __init__(self, device: str, kind: Any, shape: Any):
        self.device, self.bytes = device, kind.size * int(np.prod(list(shape)))
