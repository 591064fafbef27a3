"""`openvino`: OpenVINO over an IR that this package builds from the artifact; CPU, GPU and HETERO devices by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from backends.openvino import naming
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
)

if TYPE_CHECKING:
    from backends.openvino.copier import Copier
    from backends.openvino.session import OpenVinoSession

SCHEMES = ("int8", "int4", "fp16", "bf16")
REQUIRED = ("openvino>=2026.4",)
DEVICES = ("CPU", "GPU", "NPU")
DOWNLOAD_BYTES, DISK_BYTES = 76_000_000, 290_000_000
RESIDENT = {"int8": 1.0, "int4": 1.0, "fp16": 3.5, "bf16": 3.1}
"""Bytes held per byte of the file: products as the CPU's plugin packs them, and the table; 16-bit weights are also
widened to float32 and kept (944 MB were resident for a file of 270)."""
RUNTIME = "OpenVINO"
REMEDY = "pip install 'openvino>=2026.4'"


class OpenVino:
    """The adapter; importing it loads no runtime."""

    name = "openvino"
    builder = 1
    computes = True
    provider = None
    options: Mapping[str, Option] = {
        "threads": Option(kind=int, default=None, help="threads of the CPU; default: the plugin's choice", minimum=1),
        "pinning": Option(kind=bool, default=None, help="threads stay on their cores; default: the plugin's choice"),
        "inference_precision": Option(
            kind=str,
            default=None,
            help="arithmetic; default: bf16 or f16 where the device has it, else f32",
            choices=("f32", "f16", "bf16"),
        ),
        "dynamic_quantization_group_size": Option(
            kind=str,
            default=None,
            help="products round their inputs to int8 in such groups; 0: not at all; default: the plugin's choice",
            choices=("0", "32"),
        ),
        "kv_cache_precision": Option(
            kind=str,
            default=None,
            help="numbers of the KV cache; default: the plugin's choice",
            choices=("f32", "f16", "bf16", "u8", "i8"),
        ),
    }

    def probe(self) -> Availability:
        """Version and devices; never raises."""
        try:
            import openvino

            from backends.openvino import devices

            return Availability(versions={"openvino": openvino.get_version()}, devices=devices.present(devices.core()))
        except Exception as error:  # "never raises": a broken installation must not end `bench doctor`
            return Availability(
                reason=f"{RUNTIME} is missing or broken: {type(error).__name__}: {error}", remedy=REMEDY
            )

    def requirements(self, accelerator: str | None) -> Requirements:
        """One package for all devices; drivers come from elsewhere."""
        if accelerator and accelerator.upper() not in DEVICES:
            raise unknown_name("accelerator", accelerator, DEVICES, where="backend openvino")
        return Requirements(
            packages=REQUIRED,
            notes="GPU and NPU need their driver: docs/backends/openvino.md",
            download_bytes=DOWNLOAD_BYTES,
            disk_bytes=DISK_BYTES,
        )

    def support(self, case: Case) -> Support:
        """Pure and total: decided from the case alone."""
        if case.from_file:
            return Support(ok=False, reason="NOT_WIRED", detail="weights from a file: only llamacpp reads one as it is")
        if case.scheme not in SCHEMES:
            detail = f"scheme {case.scheme}: the IR is built for {', '.join(SCHEMES)}"
            return Support(ok=False, reason="NOT_WIRED", detail=detail)
        if case.arch.family not in get_args(Family):
            return Support(ok=False, reason="NOT_WIRED", detail=f"architecture {case.arch.family}")
        if case.provider is not None:
            return Support(ok=False, reason="NEVER", detail="OpenVINO has no execution providers: name a --device")
        if objection := naming.objection(case.device):
            return Support(ok=False, reason="NEVER", detail=objection)
        if "NPU" in (case.device or "").upper():
            detail = "the NPU compiles static shapes of batch 1 only; this IR has dynamic shapes and a growing state"
            return Support(ok=False, reason="NOT_WIRED", detail=detail)
        return Support(ok=True)

    def resident_ratio(self, case: Case) -> float:
        return RESIDENT[case.scheme]

    def environment(self, case: Case) -> Mapping[str, str]:
        return {}

    def prepare(self, case: Case, artifact: Artifact, into: Path, progress: Progress) -> Prepared:
        """Write the IR: one for both fidelities, which differ in properties only."""
        with missing_imports(RUNTIME, where="backend openvino", remedy=REMEDY):
            from backends.openvino import ir
        if artifact.scheme not in SCHEMES:
            raise CaseError(f"scheme {artifact.scheme} is not wired", phase="prepare", where="backend openvino")
        ir.write(artifact, into, progress)
        notes = {"arch": asdict(artifact.arch)}
        return Prepared(path=str(into), files=(ir.GRAPH_FILE, ir.WEIGHTS_FILE), notes=notes)

    def open(self, group: LoadGroup, prepared: Prepared) -> OpenVinoSession:
        """Compile for the device asked for, or refuse with PrerequisiteError or CaseError."""
        with missing_imports(RUNTIME, where="backend openvino", remedy=REMEDY):
            from backends.openvino.session import OpenVinoSession
        return OpenVinoSession(group, prepared)

    def mover(self, case: Case) -> Copier | None:
        """A copy in the memory of a GPU; the CPU and what computes on several devices have none of their own."""
        named = naming.parts(case.device)
        if len(named) > 1 or not named[0].startswith("GPU"):
            return None  # before anything is imported: that belongs to the load
        with missing_imports(RUNTIME, where="backend openvino", remedy=REMEDY):
            from backends.openvino import devices
            from backends.openvino.copier import Copier
        return Copier(devices.core(), devices.listed(devices.core(), named[0]))
