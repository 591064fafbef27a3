"""Which pip package brings an execution provider. Names only: reading this loads no runtime."""

from __future__ import annotations

CPU = "CPUExecutionProvider"
SUFFIX = "ExecutionProvider"

PACKAGES = {
    "CPU": "onnxruntime",
    "CUDA": "onnxruntime-gpu",
    "Tensorrt": "onnxruntime-gpu",
    "OpenVINO": "onnxruntime-ep-openvino",
    "QNN": "onnxruntime-qnn",
    "WebGpu": "onnxruntime-ep-webgpu",
    "MIGraphX": "onnxruntime-migraphx",
    "CANN": "onnxruntime-cann",
    "Dml": "onnxruntime-directml",
}
"""Providers that are on the public index; vendors' own builds come with their SDK."""


def package_of(provider: str) -> str | None:
    """The package that brings `provider`, with or without the suffix and in any case; None where none is known."""
    wanted = provider.removesuffix(SUFFIX).lower()
    return next((package for name, package in PACKAGES.items() if name.lower() == wanted), None)
