"""Everything untimed before a launch: artifact, reference, prepared files, certificate; made once and cached."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bench import protocol
from bench.api import Backend, Progress
from bench.artifacts import cache
from bench.artifacts.imported import file_digest
from bench.artifacts.reader import open_artifact
from bench.artifacts.reference import ensure_reference
from bench.artifacts.stored_reference import REFERENCE_VERSION
from bench.child import Child
from bench.collector import host
from bench.environments.code import adapter_digest
from bench.environments.interpreter import Interpreter
from bench.errors import CaseError
from bench.protocol import Job
from bench.spec import parameters
from bench.types import Case, LoadGroup, Prepared, declared

CERTIFICATE_VERSION = 2
"""Raised when certifying changes its meaning: older certificates are made again."""
CUT_LAYERS = 2
CUT_FROM_PARAMETERS = 3e9
"""Exact paths are slow, so larger models are certified on their first two layers."""


class Watcher(Protocol):
    """What the parent tells while it works; the command line decides how that looks."""

    def phase(self, name: str, detail: str = "") -> None:
        """Something begins: `prepare`, `reference`, `open`, `gate`, `measure`, …"""

    def progress(self, done: int, total: int) -> None:
        """How far it is, in any unit."""

    def tick(self) -> None:
        """Time passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a sweep is executed; nothing of it is part of a case. `targets`: backend -> `module:Attribute`.

    `python` (`--python`) and `host` (the host file, by backend) choose the workers' interpreters. `meter` is the
    command of an external meter; before the first worker sensors of power are read for `idle_s`, where there are any.
    Another bench that measures on this machine is waited for, `max_wait_s`; so are devices warmer than `cool_to_c`.
    `allow_fallback` is the share of the matrix products that may execute elsewhere than asked.
    """

    targets: Mapping[str, str] = field(default_factory=dict)
    launches: int = 1
    repetitions: int = 5
    budget_s: float | None = None
    timeout_s: float = 3600.0
    python: str | None = None
    host: Mapping[str, Interpreter] = field(default_factory=dict)
    seed: int = 0
    meter: Sequence[str] = ()
    idle_s: float = 30.0
    max_wait_s: float = 600.0
    cool_to_c: float | None = None
    allow_fallback: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a launch of one load group needs. `certified` is the file that keeps the certificate between launches."""

    digest: str | None = None
    artifact: Path | None = None
    reference: Path | None = None
    prepared: Prepared | None = None
    certificate: dict[str, Any] | None = None
    certified: Path | None = None
    prepare_s: float | None = None

    @property
    def prepared_bytes(self) -> int:
        """Size of the prepared files; 0 where nothing is prepared."""
        return (
            sum(Path(self.prepared.path, name).stat().st_size for name in self.prepared.files) if self.prepared else 0
        )


class Place(NamedTuple):
    """Where the workers of one launch are executed, and where what they print goes."""

    interpreter: Interpreter
    log: Path


class Preparer:
    """Makes load groups ready, each step at most once for a whole sweep and, where cached, once for ever."""

    def __init__(self, settings: Settings, watcher: Watcher):
        self._settings, self._watcher = settings, watcher

    def ready(self, group: LoadGroup, backend: Backend, versions: Mapping[str, str], at: Place) -> Ready:
        """Prepare `group`; raises PrerequisiteError or CaseError where that fails."""
        if not backend.computes:
            return Ready()
        case = group.first
        if case.from_file:
            return self._from_file(group, backend, versions, at)
        artifact = self._artifact(case)
        digest = open_artifact(artifact).digest
        reference = self._reference(artifact, None)
        started = time.monotonic()
        folder = cache.prepared_folder(
            backend.name, f"{case.model}-{case.scheme}", _key(digest, backend, case, versions)
        )
        prepared = self._prepared(group, backend, artifact, None, folder, at)
        prepare_s = time.monotonic() - started
        code = adapter_digest(self._settings.targets[case.backend])
        key = _certificate_key(backend, case, prepared, versions, at.interpreter, code)
        certified = cache.root() / "certificates" / f"{key}.json"
        certificate = self._certificate(group, backend, artifact, prepared, certified, at)
        return Ready(
            digest=digest,
            artifact=artifact,
            reference=reference,
            prepared=prepared,
            certificate=certificate,
            certified=certified,
            prepare_s=prepare_s,
        )

    def _from_file(self, group: LoadGroup, backend: Backend, versions: Mapping[str, str], at: Place) -> Ready:
        """Weights of others: no reference can be computed, so nothing is certified."""
        case, started = group.first, time.monotonic()
        file = Path(case.weights)
        digest = file_digest(file, cache.root() / "files", announced(self._watcher, "digest", file.name))
        key = _key(digest, backend, case, versions)
        folder = cache.prepared_folder(backend.name, f"{case.model}-{case.scheme}", key)
        prepared = self._prepared(group, backend, file, None, folder, at)
        return Ready(digest=digest, prepared=prepared, prepare_s=time.monotonic() - started)

    def _artifact(self, case: Case) -> Path:
        progress = announced(self._watcher, "synthesize", f"{case.model}-{case.scheme}")
        return cache.ensure_artifact(case.model, case.arch, case.scheme, case.weights, progress=progress)

    def _reference(self, artifact: Path, layers: int | None) -> Path:
        detail = "float32 pass" if layers is None else f"float32 pass, {layers} layers"
        return ensure_reference(artifact, layers, progress=announced(self._watcher, "reference", detail))

    def _prepared(
        self, group: LoadGroup, backend: Backend, artifact: Path, layers: int | None, folder: Path, at: Place
    ) -> Prepared:
        """The folder that the adapter wrote: sealed, and its seal checked if it was there already."""
        told = folder / "prepared.json"
        if told.exists():
            self._watcher.phase("verify", folder.name)
            cache.check_seal(folder)
            # What was checked is what is opened: a cache that was moved still names its old place inside.
            return replace(protocol.decode(Prepared, told.read_bytes()), path=str(folder))
        self._watcher.phase("prepare", f"{group.first.model}-{group.first.scheme} for {backend.name}")
        with cache.build_folder(folder) as building:
            job = self._job("prepare", group, artifact=str(artifact), layers=layers, prepared_folder=str(building))
            written = self._listen(job, at)["prepared"]
            prepared = Prepared(path=str(folder), files=tuple(written["files"]), notes=written["notes"])
            (building / "prepared.json").write_bytes(protocol.encode(prepared))
            cache.seal(building, [*prepared.files, "prepared.json"])
        return prepared

    def _certificate(
        self, group: LoadGroup, backend: Backend, artifact: Path, prepared: Prepared, certified: Path, at: Place
    ) -> dict[str, Any]:
        """The exact configuration's agreement with the reference; `reason` says why it does not agree."""
        if (kept := _kept_certificate(certified)) is not None:
            return kept
        exact = LoadGroup(cases=tuple(_exact(case) for case in group.cases))
        if parameters(group.first.arch) < CUT_FROM_PARAMETERS:
            certificate = self._certify(exact, prepared, artifact, None, at)
        else:
            name = f"{backend.name}-cut-{open_artifact(artifact).cut(CUT_LAYERS).digest[:16]}"
            with cache.scratch_folder(name) as folder:
                cut = self._prepared(exact, backend, artifact, CUT_LAYERS, folder, at)
                certificate = self._certify(exact, cut, artifact, CUT_LAYERS, at)
        if not certificate["reason"]:
            keep_certificate(certified, certificate)
        return certificate

    def _certify(
        self, group: LoadGroup, prepared: Prepared, artifact: Path, layers: int | None, at: Place
    ) -> dict[str, Any]:
        reference = self._reference(artifact, layers)
        self._watcher.phase("certify", "exact configuration against the reference")
        job = self._job(
            "certify", group, artifact=str(artifact), layers=layers, reference=str(reference), prepared=prepared
        )
        certificate: dict[str, Any] = self._listen(job, at)["certificate"]
        return certificate

    def _job(self, task: protocol.Task, group: LoadGroup, **given: Any) -> Job:
        return Job(task=task, adapter=self._settings.targets[group.first.backend], group=group, **given)

    def _listen(self, job: Job, at: Place) -> dict[str, Any]:
        return listen(job, at, self._settings.timeout_s, self._watcher)


def announced(watcher: Watcher, name: str, detail: str) -> Progress:
    """Progress that begins its phase with its first call: what is cached is not announced."""
    begun = False

    def progress(done: int, total: int) -> None:
        nonlocal begun
        if not begun:
            watcher.phase(name, detail)
            begun = True
        watcher.progress(done, total)

    return progress


def listen(job: Job, at: Place, limit_s: float, watcher: Watcher) -> dict[str, Any]:
    """Execute one untimed task in a worker; its answer is the event that carries one."""
    answer: dict[str, Any] | None = None
    with Child(at.interpreter, job, at.log, limit_s) as child:
        for event in child.events():
            match event["event"]:
                case "tick":
                    watcher.tick()
                case "progress":
                    watcher.progress(event["done"], event["total"])
                case "prepared" | "certificate" | "exported":
                    answer = event
                case "error":
                    raise protocol.rebuild(event)
    if answer is None:
        raise CaseError(f"the worker ended without an answer to {job.task}", phase=job.task)
    return answer


def keep_certificate(path: Path, certificate: Mapping[str, Any]) -> None:
    """Write a certificate for later launches, whole or not at all; where that fails it is made again."""
    aside = path.with_suffix(f".{os.getpid()}.partial")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(certificate))
        aside.replace(path)


def _kept_certificate(path: Path) -> dict[str, Any] | None:
    """None where there is none or it cannot be read: then the runtime is certified again."""
    try:
        kept = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    with suppress(OSError):
        os.utime(path)  # used now: `bench cache prune --older-than` goes by it
    whole = isinstance(kept, dict) and kept.keys() >= {"error", "worst", "layers", "reason"} and not kept["reason"]
    return kept if whole else None


def _exact(case: Case) -> Case:
    return replace(case, fidelity="exact")


def _key(digest: str, backend: Backend, case: Case, versions: Mapping[str, str]) -> str:
    """What prepared files depend on: the weights, who wrote them, and the options that the adapter says matter."""
    options = {
        name: value
        for name, value in case.options.items()
        if (option := declared(backend.options, name)) is not None and option.prepare
    }
    return _digest([digest, backend.name, backend.builder, dict(versions), options])


def _certificate_key(
    backend: Backend, case: Case, prepared: Prepared, versions: Mapping[str, str], at: Interpreter, code: str | None
) -> str:
    """A certificate holds for these files, this runtime, device, processor and options, and this way to certify.

    Another interpreter may hold another build of the same version; `code` is the adapter's, which reads back.
    """
    seal = cache.seal_digest(Path(prepared.path))
    method = [CERTIFICATE_VERSION, REFERENCE_VERSION, code]
    device = [case.provider, case.device, host.processor()]
    elsewhere = [] if at.origin == "this interpreter" else [at.label, at.build]
    paths = {name for name in case.options if (option := declared(backend.options, name)) is not None and option.path}
    files = {name: Path(case.options[name]) for name in paths if case.options[name]}
    stats = {name: file.stat() for name, file in files.items() if file.is_file()}  # a library may have been replaced
    options = [case.options, {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}]
    return _digest([method, seal, dict(versions), device, options, asdict(case.arch), *elsewhere])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
