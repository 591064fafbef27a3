"""The table of devices: what torch calls each, what brings it, and what it computes with. No torch is imported here.

A new device of torch is a row of `KINDS`, a class in `backends/pytorch/__init__.py` and an entry point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

WHEELS = "https://download.pytorch.org/whl"
TORCH = "torch>=2.6"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of device.

    `word` is torch's type of it and, but for the processor, the name of torch's module about it. `extension` is the
    package that adds both to stock torch. `build` is the field of torch.version that a fitting build fills. `index_url`
    is where pip finds that build, `packages` what is installed (nothing where only the vendor's image has it) and
    `notes` what pip cannot bring. `node` is what the kernel's driver shows. `compiled` says whether stock torch.compile
    generates kernels for it, so that decode is compiled unless told otherwise.
    """

    name: str
    word: str
    label: str
    node: str
    packages: tuple[str, ...] = (TORCH,)
    index_url: str | None = None
    notes: str | None = None
    extension: str | None = None
    build: str | None = None
    compiled: bool = False
    download_bytes: int | None = None
    disk_bytes: int | None = None

    @property
    def remedy(self) -> str:
        """The command that brings its runtime, or where to get it."""
        if not self.packages:
            return self.notes or ""
        packages = " ".join(f"'{package}'" if ">" in package else package for package in self.packages)
        return f"pip install {packages}" + (f" --extra-index-url {self.index_url}" if self.index_url else "")


CPU = Kind(
    name="cpu",
    word="cpu",
    label="processor",
    node="/proc/cpuinfo",
    index_url=f"{WHEELS}/cpu",
    download_bytes=220_000_000,
    disk_bytes=960_000_000,
)

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        CPU,
        Kind(
            name="cuda",
            word="cuda",
            label="NVIDIA GPU",
            node="/dev/nvidia0",
            build="cuda",
            compiled=True,
            notes="the driver: https://www.nvidia.com/drivers; MetaX and Iluvatar: their own torch, in their images",
        ),
        Kind(
            name="rocm",
            word="cuda",
            label="AMD GPU",
            node="/dev/kfd",
            index_url=f"{WHEELS}/rocm7.2",
            build="hip",
            compiled=True,
            notes="the driver amdgpu, and a user in the groups render and video; Hygon: its own torch, in its images",
        ),
        Kind(
            name="xpu",
            word="xpu",
            label="Intel GPU",
            node="/dev/dri/renderD128",
            index_url=f"{WHEELS}/xpu",
            build="xpu",
            compiled=True,
            notes="the driver: packages libze-intel-gpu1, libze1 and intel-opencl-icd of Intel's repository",
        ),
        Kind(
            name="npu",
            word="npu",
            label="Ascend NPU",
            node="/dev/davinci0",
            packages=("torch-npu", TORCH),
            index_url=f"{WHEELS}/cpu",
            extension="torch_npu",
            notes="CANN and the driver, from Huawei; torch-npu takes the one torch that it is built for, without CUDA",
        ),
        Kind(
            name="musa",
            word="musa",
            label="Moore Threads GPU",
            node="/dev/mtgpu.0",
            packages=(),
            extension="torch_musa",
            notes="use an image of registry.mthreads.com, or a wheel of github.com/MooreThreads/torch_musa/releases",
        ),
        Kind(
            name="mlu",
            word="mlu",
            label="Cambricon MLU",
            node="/dev/cambricon_dev0",
            packages=(),
            extension="torch_mlu",
            notes="use Cambricon's PyTorch image: torch_mlu is on no package index",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Signs:
    """How a chip gives itself away that torch calls `cuda`: by torch's version, its own name, its architecture."""

    versions: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    archs: tuple[str, ...] = ()


OTHERS: Mapping[str, Signs] = {
    "metax": Signs(versions=("metax",), names=("metax",)),
    "hygon": Signs(versions=("dtk", "das."), names=("k100_ai", "hygon"), archs=("gfx928", "gfx936")),
    "iluvatar": Signs(versions=("corex",), names=("iluvatar", "bi-v")),
    "thead": Signs(versions=("ppu",), names=("ppu",)),
}
"""Makers whose torch says `cuda` without the chip being NVIDIA's or AMD's; strings in lower case.

Seen in public code: MetaX's version suffix `+metax3.8.1.0`, Hygon's `+das.opt1.dtk2604` and gfx936, Iluvatar's
`+corex.4.4.0`, T-Head's `+ppu2.0.0`; their devices' names are MetaX C500, K100_AI, Iluvatar BI-V150.
"""


def maker(kind: Kind, version: str, name: str, arch: str, nvidia_driver: bool) -> str:
    """Whose chip a device of `kind` is: the kind's own name, one of `OTHERS`, or `unknown` with NVIDIA unproven.

    `version` is torch's, `name` and `arch` are the device's, `nvidia_driver` whether NVIDIA's driver is loaded here.
    """
    if kind.word != "cuda":
        return kind.name
    version, name, arch = version.lower(), name.lower(), arch.lower()
    for other, signs in OTHERS.items():
        local = version.partition("+")[2]
        if any(sign in local for sign in signs.versions) or any(sign in name for sign in signs.names):
            return other
        if arch.startswith(signs.archs or ("none",)):
            return other
    if kind.name == "cuda" and not nvidia_driver and "nvidia" not in name:
        return "unknown"
    return kind.name
