"""`llamacpp`: llama.cpp through llama-cpp-python's low-level API, on the canonical GGUF as it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from backends.llamacpp import builds
from backends.llamacpp.builds import REMEDY
from backends.llamacpp.parameters import OPTIONS, objection
from bench.api import Artifact, Progress
from bench.errors import CaseError, missing_imports
from bench.types import Availability, Case, Family, LoadGroup, Option, Prepared, Requirements, Support

if TYPE_CHECKING:
    from backends.llamacpp.session import LlamaCppSession

GGUF = "model.gguf"
RUNTIME = "llama.cpp"
SCHEMES = ("int8", "int4", "fp16", "bf16")
WIDENED = {"int8": 32 / 8.5, "int4": 32 / 5.0, "fp16": 2.0, "bf16": 2.0}
"""Bytes of float32 per byte of the file: what the exact configuration holds."""
TIED = 1.25
"""It holds a tied table twice: 4.6 times an int8 file and 7.2 times an int4 one were resident on SmolLM2-135M."""
REORDERED = {"int4": 1.7}
"""Of Q4_0 the processor's kernels want another order: a copy beside the mapped file."""
MOST_ROWS = 256
"""llama.cpp's LLAMA_MAX_SEQ."""


class LlamaCpp:
    """The adapter; importing it loads no runtime."""

    name = "llamacpp"
    builder = 1
    computes = True
    provider = None
    options: Mapping[str, Option] = OPTIONS

    def probe(self) -> Availability:
        """Versions and devices; never raises."""
        try:
            from backends.llamacpp import devices
            from backends.llamacpp.library import library

            lib = library()
            here = tuple(each.told(index) for index, each in enumerate(devices.present(lib)))
            return Availability(versions=lib.versions(), devices=here)
        except Exception as error:  # "never raises": a broken installation must not end `bench doctor`
            return Availability(
                reason=f"{RUNTIME} is missing or broken: {type(error).__name__}: {error}", remedy=REMEDY
            )

    def requirements(self, accelerator: str | None) -> Requirements:
        """One package, compiled here for the accelerator; the parent's builds lie in `builds.py`."""
        return builds.requirements(accelerator)

    def support(self, case: Case) -> Support:
        """Pure and total: decided from the case alone."""
        if case.from_file and case.fidelity == "exact":
            return Support(ok=False, reason="NOT_WIRED", detail="exact weights of a file: there is nothing to prove")
        if not case.from_file and case.scheme not in SCHEMES:
            return Support(ok=False, reason="NOT_WIRED", detail=f"scheme {case.scheme}: {', '.join(SCHEMES)} are wired")
        if not case.from_file and case.arch.family not in get_args(Family):
            return Support(ok=False, reason="NOT_WIRED", detail=f"architecture {case.arch.family}")
        if case.provider is not None:
            return Support(ok=False, reason="NEVER", detail="llama.cpp has no execution providers: name a --device")
        if case.workload.batch > MOST_ROWS:
            detail = f"llama.cpp holds at most {MOST_ROWS} sequences, {case.workload.batch} are asked for"
            return Support(ok=False, reason="NOT_UPSTREAM", detail=detail)
        if case.workload.batch > case.options["n_batch"]:
            detail = f"--set n_batch={case.options['n_batch']}: fewer than the batch has rows"
            return Support(ok=False, reason="NEVER", detail=detail)
        return objection(case.options, None if case.from_file else case.scheme) or Support(ok=True)

    def resident_ratio(self, case: Case) -> float:
        if case.fidelity == "exact":
            return WIDENED[case.scheme] * (TIED if case.arch.tied else 1.0)
        return 2.0 if case.from_file else REORDERED.get(case.scheme, 1.0)

    def environment(self, case: Case) -> Mapping[str, str]:
        return {}

    def prepare(self, case: Case, artifact: Artifact, into: Path, progress: Progress) -> Prepared:
        """Nothing is written: the file gets a second name, or is copied where it lies on another disk."""
        if not case.from_file and artifact.scheme not in SCHEMES:
            raise CaseError(f"scheme {artifact.scheme} is not wired", phase="prepare", where="backend llamacpp")
        try:
            os.link(artifact.gguf, into / GGUF)
        except OSError:
            shutil.copyfile(artifact.gguf, into / GGUF)
        progress(1, 1)
        return Prepared(path=str(into), files=(GGUF,), notes={"arch": asdict(artifact.arch)})

    def open(self, group: LoadGroup, prepared: Prepared) -> LlamaCppSession:
        """Load on the devices asked for, or refuse with PrerequisiteError or CaseError."""
        with missing_imports(RUNTIME, where="backend llamacpp", remedy=REMEDY):
            from backends.llamacpp.session import LlamaCppSession
        return LlamaCppSession(group, prepared)

    def mover(self, case: Case) -> None:
        """No bandwidth of a device's own memory is probed yet: rates on a GPU have no ceiling."""
