"""The table of execution providers: what each is called, what brings it, and how it wants to be asked.

Names and defaults only: no runtime is imported here. A provider that is not in it can be asked for all the same, by its
full name, with the defaults of `UNKNOWN`. What a provider is said to want stands in its own documents or sources;
`executed` says what this project has seen itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Dialect = Literal["contrib", "opset21", "opset17"]
Shapes = Literal["dynamic", "static"]

CPU = "CPUExecutionProvider"
SUFFIX = "ExecutionProvider"
HOST = "onnxruntime>=1.24"
"""Stock ONNX Runtime, which plugins are loaded into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One execution provider.

    `package` is what pip installs, None where it comes with a vendor's build; `plugin`: that is loaded into stock ONNX
    Runtime instead of replacing it. `dialect` and `shapes` are the defaults of the options of that name. `options` are
    the provider's own that it is given always, `exact` those that it is given in addition where exactness is asked for,
    `exact_config` entries of the session for the same, `threads` those that tell the number of threads (`THREADS` in
    their values) where the session's own is not heard. `device` is the option that `--device` is told by where the
    runtime lists no devices of it, or one for all (`lists_one`). `kind` is what its devices are, where the runtime
    calls them by another's. `no_device` is the likely reason where its plugin offers none. `executed`: what was seen
    of it here.
    """

    name: str
    label: str
    package: str | None = None
    plugin: bool = False
    notes: str | None = None
    dialect: Dialect = "opset17"
    shapes: Shapes = "static"
    options: Mapping[str, str] = field(default_factory=dict)
    exact: Mapping[str, str] = field(default_factory=dict)
    exact_config: Mapping[str, str] = field(default_factory=dict)
    threads: Mapping[str, str] = field(default_factory=dict)
    device: Literal["device_id", "device_type"] | None = None
    kind: str | None = None
    lists_one: bool = False
    no_device: str | None = None
    aliases: tuple[str, ...] = ()
    executed: str | None = None

    @property
    def short(self) -> str:
        """Its name without the suffix that all have."""
        return self.name.removesuffix(SUFFIX)

    @property
    def module(self) -> str | None:
        """The Python module of its plugin package."""
        return self.package.replace("-", "_") if self.package and self.plugin else None


THREADS = "{threads}"
UNKNOWN = Known(name="", label="a provider that is not in this table")

PROVIDERS: Mapping[str, Known] = {
    known.name: known
    for known in (
        Known(
            name=CPU,
            label="processor",
            package="onnxruntime",
            dialect="contrib",
            shapes="dynamic",
            exact_config={"session.qdq_matmulnbits_accuracy_level": "0"},
            executed="all dialects, dynamic and static",
        ),
        Known(
            name="CUDAExecutionProvider",
            label="NVIDIA GPU",
            package="onnxruntime-gpu",
            notes="NVIDIA's driver; CUDA and cuDNN: pip install 'onnxruntime-gpu[cuda,cudnn]'",
            dialect="contrib",
            shapes="dynamic",
            exact={"use_tf32": "0"},
            device="device_id",
        ),
        Known(
            name="TensorrtExecutionProvider",
            label="NVIDIA GPU, compiled by TensorRT",
            package="onnxruntime-gpu",
            notes="NVIDIA's driver, CUDA, cuDNN and TensorRT's libraries",
            device="device_id",
            aliases=("trt",),
        ),
        Known(
            name="NvTensorRTRTXExecutionProvider",
            label="NVIDIA GPU, compiled by TensorRT-RTX",
            notes="a build of ONNX Runtime with TensorRT-RTX, or its plugin library: --set plugin=PATH",
            device="device_id",
        ),
        Known(
            name="OpenVINOExecutionProvider",
            label="Intel processor, GPU, NPU",
            package="onnxruntime-ep-openvino",
            plugin=True,
            notes="for a GPU or NPU Intel's driver; the processor is offered on Intel's only",
            dialect="opset21",
            shapes="dynamic",
            exact={
                "load_config": '{"CPU": {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "INFERENCE_PRECISION_HINT": "f32"}}'
            },
            threads={"load_config": '{"CPU": {"INFERENCE_NUM_THREADS": "{threads}"}}'},
            device="device_type",
            no_device="it takes a processor only where that is Intel's, a GPU or NPU only with Intel's driver",
            executed="the processor device of plugin 1.8.1, opset 21 and 17",
        ),
        Known(
            name="WebGpuExecutionProvider",
            label="any GPU, through Vulkan",
            package="onnxruntime-ep-webgpu",
            plugin=True,
            notes="a Vulkan driver and its loader, libvulkan.so.1",
            dialect="contrib",
            shapes="dynamic",
            no_device="it wants a Vulkan driver and libvulkan.so.1",
            executed="plugin 0.4.0 on a software adapter: contrib and opset 17, exact",
        ),
        Known(
            name="DmlExecutionProvider",
            label="any GPU on Windows, through DirectML",
            package="onnxruntime-directml",
            notes="Windows only",
            dialect="contrib",
            shapes="dynamic",
            device="device_id",
            aliases=("directml",),
        ),
        Known(
            name="QNNExecutionProvider",
            label="Qualcomm NPU",
            package="onnxruntime-qnn",
            plugin=True,
            notes="a Snapdragon with Qualcomm's driver",
        ),
        Known(
            name="MIGraphXExecutionProvider",
            label="AMD GPU",
            package="onnxruntime-migraphx",
            notes="the driver amdgpu, ROCm with MIGraphX, and a user in the groups render and video; "
            "AMD's own wheels: https://rocm.frameworks.amd.com/whl-multi-arch/onnxruntime-migraphx",
            device="device_id",
        ),
        Known(
            name="CANNExecutionProvider",
            label="Ascend NPU",
            package="onnxruntime-cann",
            notes="the driver and CANN (toolkit and kernels) from Huawei; then `source .../ascend-toolkit/set_env.sh`",
            options={"precision_mode": "must_keep_origin_dtype"},
            device="device_id",
            aliases=("ascend",),
        ),
        Known(
            name="MUSAExecutionProvider",
            label="Moore Threads GPU",
            notes="onnxruntime-ep-musa is on no package index: use an image registry.mthreads.com/presale/devtech/"
            "fusionrt, or build github.com/MooreThreads/onnxruntime-musa and pip install its wheel with --no-deps",
            device="device_id",
            kind="musa",
            lists_one=True,
            no_device="the MUSA driver tells of no card",
        ),
        Known(
            name="MACAExecutionProvider",
            label="MetaX GPU",
            notes="MetaX's build of ONNX Runtime (MacaRT: package onnxruntime-maca and the wheel in it), from its SDK",
            device="device_id",
        ),
        Known(
            name="TopsInferenceExecutionProvider",
            label="Enflame GCU",
            notes="Enflame's build of ONNX Runtime, which comes with TopsInference",
            aliases=("tops", "gcu"),
        ),
        *(
            Known(name=name + SUFFIX, label=label, notes="a build of ONNX Runtime that has it")
            for name, label in (
                ("CoreML", "Apple GPU and neural engine"),
                ("VitisAI", "AMD NPU"),
                ("Rknpu", "Rockchip NPU"),
                ("VSINPU", "VeriSilicon NPU"),
                ("Dnnl", "processor, through oneDNN"),
                ("Xnnpack", "processor, through XNNPACK"),
                ("ACL", "Arm processor, through the Compute Library"),
            )
        ),
        Known(
            name="AzureExecutionProvider",
            label="remote service",
            notes="a build of ONNX Runtime that has it",
            dialect="contrib",  # it takes no node of any graph, so this is the CPU's
            shapes="dynamic",
        ),
    )
}

NAMES: Mapping[str, str] = {
    word.lower(): known.name for known in PROVIDERS.values() for word in (known.name, known.short, *known.aliases)
}
"""Full names by all that people call them, in lower case."""


def known(provider: str) -> Known:
    """What is known of `provider`, by its full name; `UNKNOWN` where nothing is."""
    return PROVIDERS.get(provider, UNKNOWN)


def dialects() -> dict[str, str]:
    """The dialect of every provider in the table."""
    return {name: found.dialect for name, found in PROVIDERS.items()}


def shapes() -> dict[str, str]:
    """Dynamic or static shapes, for every provider in the table."""
    return {name: found.shapes for name, found in PROVIDERS.items()}
