"""Stock PyTorch on any device that it knows: one decoder over the artifact's codes, one table of devices (kinds.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, get_args

from backends.pytorch import isa
from backends.pytorch.kinds import CPU, KINDS, Kind
from bench.api import Artifact, Progress
from bench.errors import BenchError, CaseError, missing_imports, unknown_name
from bench.types import Availability, Case, Family, LoadGroup, Option, Prepared, Requirements, Support

if TYPE_CHECKING:
    from backends.pytorch.copier import Copier
    from backends.pytorch.session import TorchSession

SCHEMES = ("int8", "int4", "fp16", "bf16")
WIDENED = 2.0
"""`exact` multiplies halves as float32."""
PACKED = 4 / 3
"""int4 through ATen's kernel, which reads 8 bytes of scales with a group's 16 bytes of codes."""
RUNTIME = "torch"
COMPILE = Option(kind=bool, default=None, help="decode through torch.compile; default: where it knows the device")


class Torch:
    """The adapter of one kind of device; importing it loads no runtime."""

    kind: ClassVar[Kind]
    builder = 1
    computes = True
    provider = None
    options: Mapping[str, Option] = {"compile": COMPILE}

    @property
    def name(self) -> str:
        return self.kind.name

    def probe(self) -> Availability:
        """Versions and devices, or what is missing and how to get it; never raises."""
        try:
            from backends.pytorch import devices

            found = devices.present(self.kind)
            return Availability(versions=devices.versions(self.kind), devices=found)
        except BenchError as error:
            return Availability(reason=error.what, remedy=error.remedy)
        except Exception as error:  # "never raises": a broken installation must not end `bench doctor`
            reason = f"{RUNTIME} is missing or broken: {type(error).__name__}: {error}"
            return Availability(reason=reason, remedy=self.kind.remedy)

    def requirements(self, accelerator: str | None) -> Requirements:
        """torch for this kind; UsageError for any other."""
        kind = self.kind
        if accelerator and accelerator.lower() != kind.name:
            raise unknown_name("accelerator", accelerator, (kind.name,), where=f"backend {kind.name}")
        return Requirements(
            packages=kind.packages,
            index_url=kind.index_url,
            notes=kind.notes,
            download_bytes=kind.download_bytes,
            disk_bytes=kind.disk_bytes,
        )

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
        if self.kind is not CPU:
            return 1.0
        if case.fidelity == "exact":
            return WIDENED if case.scheme in ("fp16", "bf16") else 1.0
        return PACKED if case.scheme == "int4" else 1.0

    def environment(self, case: Case) -> Mapping[str, str]:
        return {}

    def prepare(self, case: Case, artifact: Artifact, into: Path, progress: Progress) -> Prepared:
        """Write `weights.bin`, for both fidelities; it is the same for all devices."""
        from backends.pytorch import weights

        if artifact.scheme not in SCHEMES:
            raise CaseError(f"scheme {artifact.scheme} is not wired", phase="prepare", where=f"backend {self.name}")
        stored = weights.write(artifact, into / weights.FILE, progress)
        notes = {
            "arch": asdict(artifact.arch),
            "inv_freq": artifact.inv_freq().tolist(),
            "stored": {name: asdict(entry) for name, entry in stored.items()},
        }
        return Prepared(path=str(into), files=(weights.FILE,), notes=notes)

    def open(self, group: LoadGroup, prepared: Prepared) -> TorchSession:
        """Load on the device, or refuse with PrerequisiteError or CaseError."""
        with missing_imports(RUNTIME, where=f"backend {self.name}", remedy=self.kind.remedy):
            from backends.pytorch.session import TorchSession
        return TorchSession(self.kind, group, prepared)

    def mover(self, case: Case) -> Copier | None:
        """In the device's own memory; a processor computes from the host's, which the harness probes."""
        if self.kind is CPU:
            return None
        from backends.pytorch.copier import Copier

        return Copier(self.kind, case.device)


class Cpu(Torch):
    """The processor, its instruction sets and its threads."""

    kind = CPU
    options: Mapping[str, Option] = {
        "compile": COMPILE,
        "isa": Option(
            kind=str,
            default=isa.NATIVE,
            help="instruction set that kernels are held to, as --isa",
            choices=isa.CHOICES,
        ),
        "pinning": Option(kind=bool, default=None, help="threads stay on cores of their own; default: OpenMP's choice"),
        "threads": Option(
            kind=int, default=None, help="threads of an operator; default: torch's own choice", minimum=1
        ),
    }

    def environment(self, case: Case) -> Mapping[str, str]:
        """Ceilings of instruction sets, and where OpenMP's threads stay: read once, before the first kernel."""
        return {**isa.variables(case.options["isa"]), **isa.binding(case.options["pinning"]), **isa.PROFILE}


class Cuda(Torch):
    kind = KINDS["cuda"]


class Rocm(Torch):
    kind = KINDS["rocm"]


class Xpu(Torch):
    kind = KINDS["xpu"]
    options: Mapping[str, Option] = {
        "compile": COMPILE,
        "ipex": Option(
            kind=bool, default=False, help="import Intel's archived extension, whose kernels replace torch's"
        ),
    }


class Npu(Torch):
    kind = KINDS["npu"]


class Musa(Torch):
    kind = KINDS["musa"]


class Mlu(Torch):
    kind = KINDS["mlu"]
