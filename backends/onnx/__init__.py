"""`onnx`: ONNX Runtime over a graph that this package builds from the artifact; any execution provider by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from backends.onnx.exporting import SCHEMES, Exporting
from backends.onnx.known import CPU, HOST, NAMES, PROVIDERS, UNKNOWN, Dialect, Shapes, dialects, known, shapes
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

ONNX = "onnx>=1.21"
DOWNLOAD_BYTES, DISK_BYTES = 50_000_000, 210_000_000
RESIDENT = {"int8": 40 / 34, "int4": 24 / 18, "fp16": 2.2}
"""Bytes held per byte of the file: 32 codes with a float32 scale and a float32 sum instead of a float16 scale; float16
as float32 (595 MB were resident for a file of 269 MB)."""
STORED = {"int8": 34 / 32, "int4": 18 / 32, "fp16": 2.0}
"""Bytes of the file for a weight."""
RUNTIME = "ONNX Runtime or onnx"


class Onnx(Exporting):
    """The adapter; importing it loads no runtime."""

    name = "onnx"
    builder = 3
    computes = True
    provider = CPU
    providers: Mapping[str, str] = NAMES
    options: Mapping[str, Option] = {
        "threads": Option(
            kind=int, default=None, help="threads of one operation; default: the physical cores allowed", minimum=1
        ),
        "allow_spinning": Option(kind=bool, default=True, help="idle threads spin instead of sleeping"),
        "graph_optimization": Option(
            kind=str, default="all", help="level of graph optimization", choices=("basic", "extended", "all")
        ),
        "dialect": Option(
            kind=str,
            default=UNKNOWN.dialect,
            by_provider=dialects(),
            help="operators that the graph is made of",
            choices=get_args(Dialect),
            prepare=True,
        ),
        "shapes": Option(
            kind=str,
            default=UNKNOWN.shapes,
            by_provider=shapes(),
            help="whether every shape is fixed when the session is made",
            choices=get_args(Shapes),
        ),
        "plugin": Option(
            kind=str, default=None, help="path of a plugin provider's library", path=True, brings_provider=True
        ),
        "ep.*": Option(kind=str, default=None, help="an option of the execution provider, as it calls it"),
    }

    @property
    def remedy(self) -> str:
        """The command that installs the runtime, with what brings its own provider."""
        packages = self.requirements(None).packages
        return "pip install " + " ".join(f"'{name}'" if ">" in name else name for name in packages)

    def probe(self) -> Availability:
        """Versions, devices and providers, plugins included; never raises."""
        try:
            from backends.onnx import plugins, providers

            here, why = plugins.present(), plugins.unusable()
            found = Availability(
                versions={"onnxruntime": providers.version(), "onnx": metadata.version("onnx"), **plugins.versions()},
                providers=tuple(sorted(here)),
                devices=providers.devices(),
                unusable=why,
            )
            if self.provider == CPU:
                return found
            if self.provider in here:
                return replace(found, providers=(self.provider,), devices=providers.devices(self.provider), unusable={})
            reason = why.get(self.provider) or f"this ONNX Runtime {providers.version()} has no {self.provider}"
            return Availability(versions=found.versions, reason=reason, remedy=self.remedy)
        except Exception as error:  # "never raises": a broken installation must not end `bench doctor`
            return Availability(
                reason=f"{RUNTIME} is missing or broken: {type(error).__name__}: {error}", remedy=self.remedy
            )

    def requirements(self, accelerator: str | None) -> Requirements:
        """The packages of its own provider, or those that bring the provider `accelerator`; UsageError if unknown."""
        name = NAMES.get(accelerator.lower()) if accelerator else self.provider
        if name is None:
            words = [found.short.lower() for found in PROVIDERS.values()]
            raise unknown_name("accelerator", str(accelerator).lower(), words, where=f"backend {self.name}")
        found = known(name)
        if name == CPU:
            return Requirements(packages=(HOST, ONNX), download_bytes=DOWNLOAD_BYTES, disk_bytes=DISK_BYTES)
        if found.package is None:
            return Requirements(packages=(), notes=f"{name}: {found.notes}")
        notes = f"{found.package} brings {name}; pip cannot bring {found.notes}"
        if not found.plugin:
            notes += "; it takes the place of onnxruntime, so it wants an environment of its own"
        host = (HOST,) if found.plugin else ()
        return Requirements(packages=(*host, found.package, ONNX), notes=notes)

    def support(self, case: Case) -> Support:
        """Pure and total: decided from the case alone."""
        if case.from_file:
            return Support(ok=False, reason="NOT_WIRED", detail="weights from a file: only llamacpp reads one as it is")
        if case.scheme not in SCHEMES:
            detail = f"scheme {case.scheme}: the graph is built for {', '.join(SCHEMES)}"
            return Support(ok=False, reason="NOT_WIRED", detail=detail)
        if case.arch.family not in get_args(Family):
            return Support(ok=False, reason="NOT_WIRED", detail=f"architecture {case.arch.family}")
        provider, dialect = case.provider or self.provider, self._chosen(case, "dialect")
        if self.provider != CPU and provider != self.provider:
            detail = f"backend {self.name} is {self.provider} alone: {provider} is asked for as --backend onnx"
            return Support(ok=False, reason="NEVER", detail=detail)
        if dialect == "contrib" and self._chosen(case, "shapes") == "static":
            detail = "the contrib graph has no fixed shapes: --set shapes=dynamic, or --set dialect=opset21"
            return Support(ok=False, reason="NOT_WIRED", detail=detail)
        by_cpu = dialect == "contrib" and provider == CPU
        if by_cpu and case.workload.batch > 1 and _appends_several_tokens(case.workload):
            detail = (
                "GroupQueryAttention on CPU takes several new tokens on a filled cache for one row only; "
                f"batch {case.workload.batch} needs depth and prompt in one step (now chunks of {case.workload.chunk})"
            )
            return Support(ok=False, reason="NOT_UPSTREAM", detail=detail)
        return Support(ok=True)

    def resident_ratio(self, case: Case) -> float:
        """Where shapes are fixed there is a session for one token and one for prompts, and each holds the weights."""
        held = RESIDENT[case.scheme]
        if self._chosen(case, "dialect") == "opset17":
            held = (4 if (case.provider or self.provider) == CPU else 2) / STORED[case.scheme]
        return held * 2 if self._chosen(case, "shapes") == "static" else held

    def environment(self, case: Case) -> Mapping[str, str]:
        return {}

    def prepare(self, case: Case, artifact: Artifact, into: Path, progress: Progress) -> Prepared:
        """Write `weights.bin` and the graphs `native.onnx` and `exact.onnx` over it."""
        with missing_imports(RUNTIME, where=f"backend {self.name}", remedy=self.remedy):
            from backends.onnx import preparing
        if artifact.scheme not in SCHEMES:
            raise CaseError(f"scheme {artifact.scheme} is not wired", phase="prepare", where=f"backend {self.name}")
        return preparing.prepare(artifact, self._chosen(case, "dialect"), into, progress)

    def open(self, group: LoadGroup, prepared: Prepared) -> OnnxSession:
        """Load on the provider and device asked for, or refuse with PrerequisiteError or CaseError."""
        with missing_imports(RUNTIME, where=f"backend {self.name}", remedy=self.remedy):
            from backends.onnx.session import OnnxSession, StaticSession
        fixed = self._chosen(group.first, "shapes")
        cases = tuple(
            replace(case, provider=case.provider or self.provider, options={**case.options, "shapes": fixed})
            for case in group.cases
        )
        kind = StaticSession if fixed == "static" else OnnxSession
        return kind(LoadGroup(cases=cases), prepared)

    def mover(self, case: Case) -> None:
        """No provider lets Python move memory inside its device."""

    def _chosen(self, case: Case, name: str) -> Any:
        """An option of a case, or what the provider has in its place where the case was not planned."""
        return case.options.get(name, self.options[name].default_for(case.provider or self.provider))


class Ascend(Onnx):
    """Ascend NPUs, through ONNX Runtime's CANN provider."""

    name = "ascend"
    provider = "CANNExecutionProvider"


class MiGraphX(Onnx):
    """AMD GPUs, through ONNX Runtime's MIGraphX provider."""

    name = "migraphx"
    provider = "MIGraphXExecutionProvider"


def _appends_several_tokens(workload: Workload) -> bool:
    """Whether a step of several tokens meets a cache that is not empty."""
    steps = [
        min(workload.chunk, tokens - start)
        for tokens in (workload.depth, workload.prompt_tokens)
        for start in range(0, tokens, workload.chunk)
    ]
    return any(tokens > 1 for tokens in steps[1:])
