"""How the library is compiled for each accelerator, and what must be there to compile it."""

from __future__ import annotations

from bench.errors import UsageError
from bench.types import Requirements

RUNTIME = "llama-cpp-python"
PINNED = "0.3.36"
"""Exactly one release: the structs of llama.cpp change monthly, and `tensors.py` mirrors one of them."""
PACKAGE = f"{RUNTIME}=={PINNED}"
REMEDY = "bench setup llamacpp"
_ALWAYS = "-DLLAVA_BUILD=OFF"
"""Image input is of no use here and takes half of the compiler's time."""

ACCELERATORS = {
    "cpu": ("", (), "compiled for the processor of this machine"),
    "cuda": ("-DGGML_CUDA=ON", ("nvcc",), "needs NVIDIA's CUDA toolkit and driver"),
    "hip": ("-DGGML_HIP=ON", ("hipcc",), "needs AMD's ROCm; name the chip by HIP's own AMDGPU_TARGETS"),
    "sycl": (
        "-DGGML_SYCL=ON -DCMAKE_C_COMPILER=icx -DCMAKE_CXX_COMPILER=icpx",
        ("icx", "icpx"),
        "needs Intel's oneAPI (source setvars.sh first) and GPU driver",
    ),
    "vulkan": ("-DGGML_VULKAN=ON", ("glslc",), "needs Vulkan's headers, glslc and a driver"),
    "cann": ("-DGGML_CANN=ON", (), "needs Huawei's CANN toolkit (source its set_env.sh first)"),
    "musa": ("-DGGML_MUSA=ON", ("mcc",), "needs Moore Threads' MUSA toolkit"),
}
"""Name of `--accelerator`: cmake's flags, compilers beside c++, what pip cannot bring."""

DEVICES = {
    "CPU": "cpu",
    "CUDA": "cuda",
    "ROCM": "hip",
    "SYCL": "sycl",
    "VULKAN": "vulkan",
    "CANN": "cann",
    "MUSA": "musa",
}
"""How ggml begins the names of devices (in capitals), and the accelerator whose build has them."""


def requirements(accelerator: str | None) -> Requirements:
    """What `bench setup llamacpp` installs; UsageError for an accelerator that the library cannot be compiled for."""
    name = (accelerator or "cpu").lower()
    if name not in ACCELERATORS:
        raise UsageError(
            f"llama.cpp is not compiled for {accelerator!r}", where="--accelerator", remedy=f"one of {_known()}"
        )
    flags, compilers, notes = ACCELERATORS[name]
    return Requirements(
        packages=(PACKAGE,),
        build={"CMAKE_ARGS": f"{_ALWAYS} {flags}".strip()},
        tools=("c++", *compilers),
        minutes=5.0 if name == "cpu" else 30.0,
        download_bytes=120_000_000,
        disk_bytes=900_000_000,
        native=True,
        notes=notes,
    )


def remedy_for(device: str) -> str:
    """The command that makes a build which has `device`."""
    kind = next((build for start, build in DEVICES.items() if device.upper().startswith(start)), None)
    return (
        f"{REMEDY} --accelerator {kind}" if kind and kind != "cpu" else f"name a --device that is present, or {REMEDY}"
    )


def _known() -> str:
    return ", ".join(ACCELERATORS)
