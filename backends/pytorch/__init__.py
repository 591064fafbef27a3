"""`cpu`: stock PyTorch on the processor, one decoder over the artifact's codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from bench.api import Artifact, Progress
from bench.errors import CaseError, missing_imports, unknown_name
from bench.types import Availability, Case, Family, LoadGroup, Option, Prepared, Requirements, Support

if TYPE_CHECKING:
    from backends.pytorch.session import TorchSession

SCHEMES = ("int8", "int4", "fp16", "bf16")
REQUIRED = ("torch>=2.6",)
WHEELS = "https://download.pytorch.org/whl/cpu"
"""Of torch for the processor alone: 0.2 GB where PyPI's brings CUDA with it."""
DOWNLOAD_BYTES, DISK_BYTES = 220_000_000, 960_000_000
WIDENED = 3.0
"""float16 is multiplied as float32, which is kept beside the pages of the file."""
RUNTIME, WHERE = "torch", "backend cpu"
REMEDY = f"pip install torch --index-url {WHEELS}"


class Cpu:
    """The adapter; importing it loads no runtime."""

    name = "cpu"
    builder = 1
    computes = True
    provider = None
    options: Mapping[str, Option] = {
        "threads": Option(
            kind=int, default=None, help="threads of an operator; default: torch's own choice", minimum=1
        ),
    }

    def probe(self) -> Availability:
        """Version and processor; never raises."""
        try:
            import torch

            from backends.pytorch import devices

            return Availability(versions={"torch": torch.__version__}, devices=devices.present())
        except Exception as error:  # "never raises": a broken installation must not end `bench doctor`
            reason = f"{RUNTIME} is missing or broken: {type(error).__name__}: {error}"
            return Availability(reason=reason, remedy=REMEDY)

    def requirements(self, accelerator: str | None) -> Requirements:
        """torch for the processor; UsageError for any accelerator."""
        if accelerator and accelerator.lower() != self.name:
            raise unknown_name("accelerator", accelerator, (self.name,), where=WHERE)
        return Requirements(packages=REQUIRED, index_url=WHEELS, download_bytes=DOWNLOAD_BYTES, disk_bytes=DISK_BYTES)

    def support(self, case: Case) -> Support:
        """Pure and total: decided from the case alone."""
        if case.from_file:
            return Support(ok=False, reason="NOT_WIRED", detail="weights from a file: only llamacpp reads one as it is")
        if case.scheme not in SCHEMES:
            return Support(ok=False, reason="NOT_WIRED", detail=f"scheme {case.scheme}: {', '.join(SCHEMES)} are wired")
        if case.arch.family not in get_args(Family):
            return Support(ok=False, reason="NOT_WIRED", detail=f"architecture {case.arch.family}")
        if case.provider is not None:
            return Support(ok=False, reason="NEVER", detail="torch has no execution providers")
        return Support(ok=True)

    def resident_ratio(self, case: Case) -> float:
        return WIDENED if case.scheme == "fp16" or (case.scheme == "bf16" and case.fidelity == "exact") else 1.0

    def prepare(self, case: Case, artifact: Artifact, into: Path, progress: Progress) -> Prepared:
        """Write `weights.bin`, for both fidelities."""
        from backends.pytorch import weights

        if artifact.scheme not in SCHEMES:
            raise CaseError(f"scheme {artifact.scheme} is not wired", phase="prepare", where=WHERE)
        stored = weights.write(artifact, into / weights.FILE, progress)
        notes = {
            "arch": asdict(artifact.arch),
            "inv_freq": artifact.inv_freq().tolist(),
            "stored": {name: asdict(entry) for name, entry in stored.items()},
        }
        return Prepared(path=str(into), files=(weights.FILE,), notes=notes)

    def open(self, group: LoadGroup, prepared: Prepared) -> TorchSession:
        """Load on the processor, or refuse with PrerequisiteError or CaseError."""
        with missing_imports(RUNTIME, where=WHERE, remedy=REMEDY):
            from backends.pytorch.session import TorchSession
        return TorchSession(group, prepared)

    def mover(self, case: Case) -> None:
        """It computes from the host's memory, which the harness probes."""
