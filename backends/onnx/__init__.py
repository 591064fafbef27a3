"""`onnx`: ONNX Runtime over a graph that this package builds from the artifact; any execution provider by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from backends.onnx.packages import CPU, PACKAGES, package_of
from bench.api import Artifact, Progress
from bench.errors import CaseError, missing_imports, unknown_name
from bench.types import (
    Availability,
    Case,
    Family,
    LoadGroup,
    Option,
    Prepared,
    Requirements,
    Support,
    Workload,
)

if TYPE_CHECKING:
    from backends.onnx.session import OnnxSession

SCHEMES = ("int8", "int4", "fp16")
REQUIRED = ("onnxruntime>=1.24", "onnx>=1.21")
DOWNLOAD_BYTES, DISK_BYTES = 50_000_000, 210_000_000
RESIDENT = {"int8": 40 / 34, "int4": 24 / 18, "fp16": 2.2}
"""Bytes held per byte of the file: 32 codes with a float32 scale and a float32 sum instead of a float16 scale; float16
as float32 (595 MB were resident for a file of 269 MB)."""
RUNTIME = "ONNX Runtime or onnx"
REMEDY = "pip install 'onnxruntime>=1.24' 'onnx>=1.21'"


class Onnx:
    """The adapter; importing it loads no runtime."""

    name = "onnx"
    builder = 2
    computes = True
    provider = CPU
    options: Mapping[str, Option] = {
        "threads": Option(
            kind=int, default=None, help="threads of one operation; default: the physical cores allowed", minimum=1
        ),
        "allow_spinning": Option(kind=bool, default=True, help="idle threads spin instead of sleeping"),
        "dialect": Option(
            kind=str,
            default="contrib",
            help="operators that the graph is built of",
            choices=("contrib", "opset21", "opset17"),
            prepare=True,
        ),
        "shapes": Option(
            kind=str, default="dynamic", help="whether the graph's dimensions are fixed", choices=("dynamic", "static")
        ),
        "graph_optimization": Option(
            kind=str, default="all", help="level of graph optimization", choices=("basic", "extended", "all")
        ),
    }

    def probe(self) -> Availability:
        """Versions, devices and providers, plugins included; never raises."""
        try:
            from backends.onnx import providers

            return Availability(
                versions={"onnxruntime": providers.version(), "onnx": metadata.version("onnx")},
                providers=tuple(sorted(providers.present())),
                devices=providers.devices(),
            )
        except Exception as error:  # "never raises": a broken installation must not end `bench doctor`
            return Availability(
                reason=f"{RUNTIME} is missing or broken: {type(error).__name__}: {error}",
                remedy=REMEDY,
            )

    def requirements(self, accelerator: str | None) -> Requirements:
        """The CPU's packages, or those that bring the execution provider `accelerator`; UsageError if unknown."""
        package = package_of(accelerator or "CPU")
        if accelerator and package is None:
            raise unknown_name("accelerator", accelerator, PACKAGES, where="backend onnx")
        if package is None or package == "onnxruntime":
            return Requirements(packages=REQUIRED, download_bytes=DOWNLOAD_BYTES, disk_bytes=DISK_BYTES)
        notes = f"{package} brings {accelerator}; its driver comes from the vendor"
        if package.startswith(("onnxruntime-ep-", "onnxruntime-qnn")):
            return Requirements(packages=(*REQUIRED, package), notes=notes)
        return Requirements(packages=(package, *REQUIRED[1:]), notes=notes)

    def support(self, case: Case) -> Support:
        """Pure and total: decided from the case alone."""
        if case.from_file:
            return Support(ok=False, reason="NOT_WIRED", detail="weights from a file: only llamacpp reads one as it is")
        if case.scheme not in SCHEMES:
            detail = f"scheme {case.scheme}: the graph is built for {', '.join(SCHEMES)}"
            return Support(ok=False, reason="NOT_WIRED", detail=detail)
        if case.arch.family not in get_args(Family):
            return Support(ok=False, reason="NOT_WIRED", detail=f"architecture {case.arch.family}")
        contrib_on_cpu = case.provider in (None, CPU) and case.options.get("dialect", "contrib") == "contrib"
        if contrib_on_cpu and case.workload.batch > 1 and _appends_several_tokens(case.workload):
            detail = (
                "GroupQueryAttention on CPU takes several new tokens on a filled cache for one row only; "
                f"batch {case.workload.batch} needs depth and prompt in one step (now chunks of {case.workload.chunk})"
            )
            return Support(ok=False, reason="NOT_UPSTREAM", detail=detail)
        return Support(ok=True)

    def resident_ratio(self, case: Case) -> float:
        return RESIDENT[case.scheme]

    def environment(self, case: Case) -> Mapping[str, str]:
        return {}

    def prepare(self, case: Case, artifact: Artifact, into: Path, progress: Progress) -> Prepared:
        """Write `weights.bin` and the graphs `native.onnx` and `exact.onnx` over it."""
        with missing_imports(RUNTIME, where="backend onnx", remedy=REMEDY):
            from backends.onnx import preparing
        if artifact.scheme not in SCHEMES:
            raise CaseError(f"scheme {artifact.scheme} is not wired", phase="prepare", where="backend onnx")
        return preparing.prepare(artifact, case.options.get("dialect", "contrib"), into, progress)

    def open(self, group: LoadGroup, prepared: Prepared) -> OnnxSession:
        """Load on the provider and device asked for, or refuse with PrerequisiteError or CaseError."""
        with missing_imports(RUNTIME, where="backend onnx", remedy=REMEDY):
            from backends.onnx.session import OnnxSession, StaticSession
        kind = StaticSession if group.first.options.get("shapes") == "static" else OnnxSession
        return kind(group, prepared)

    def mover(self, case: Case) -> None:
        """No provider lets Python move memory inside its device."""


def _appends_several_tokens(workload: Workload) -> bool:
    """Whether a step of several tokens meets a cache that is not empty."""
    steps = [
        min(workload.chunk, tokens - start)
        for tokens in (workload.depth, workload.prompt_tokens)
        for start in range(0, tokens, workload.chunk)
    ]
    return any(tokens > 1 for tokens in steps[1:])
