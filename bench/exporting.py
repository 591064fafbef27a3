"""A model as a folder that others' compilers take: artifact, sample, a worker that writes it, digests; whole or not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.api import Backend, Exporter, Progress
from bench.artifacts import cache
from bench.artifacts.folders import folder_lock, staged_folder
from bench.artifacts.reader import open_artifact
from bench.artifacts.reference import GATE_POSITIONS
from bench.artifacts.sample import make_sample, save_sample
from bench.artifacts.synthesize import artifact_bytes
from bench.environments.interpreter import Interpreter
from bench.errors import BenchError, CaseError, UsageError
from bench.preparing import Place, Watcher, announced, listen
from bench.protocol import Job
from bench.types import Case, LoadGroup

SUMS_NAME = "SHA256SUMS"
"""As sha256sum writes and checks it."""
LIMIT_S = 24 * 3600.0
"""Nobody waits so long: writing goes as fast as the disk."""
REMEDY = "name another folder"


def sampled(length: int | None) -> tuple[int, int]:
    """Tokens of the prompt and decode steps of the sample that fits a cache of `length`, None for one of any length."""
    positions = GATE_POSITIONS if length is None else min(length, GATE_POSITIONS)
    steps = max(1, positions // 4)
    return positions - steps, steps


def export_model(
    case: Case, backend: Backend, target: str, interpreter: Interpreter, into: Path, watcher: Watcher
) -> None:
    """Write the model of `case` as the folder `into`, which appears when it is whole; UsageError where it may not.

    `target` is the adapter's `module:Attribute`. Where the worker fails, its log stays beside `into`.
    """
    exporter = check_export(case, backend)
    final = Path(os.path.realpath(into))
    _check_place(final, into)
    with folder_lock(final, REMEDY):
        _check_place(final, into)  # somebody may have been faster
        with staged_folder(final, _needed_bytes(case, exporter, final), REMEDY) as building, _log(final) as log:
            progress = announced(watcher, "synthesize", f"{case.model}-{case.scheme}")
            artifact = cache.ensure_artifact(case.model, case.arch, case.scheme, case.weights, progress)
            with cache.scratch_folder(f"export-{case.model}-{case.scheme}") as scratch:
                scratch.mkdir()
                workload = case.workload
                watcher.phase("reference", "float32 pass")
                save_sample(
                    make_sample(open_artifact(artifact), workload.batch, workload.positions, watcher.progress), scratch
                )
                watcher.phase("export", f"{case.model}-{case.scheme}")
                job = Job(
                    task="export",
                    adapter=target,
                    group=LoadGroup(cases=(case,)),
                    artifact=str(artifact),
                    reference=str(scratch),
                    prepared_folder=str(building),
                )
                listen(job, Place(interpreter, log), LIMIT_S, watcher)
            watcher.phase("digest", into.name)
            write_sums(building, watcher.progress)


def check_export(case: Case, backend: Backend) -> Exporter:
    """`backend` where it can write the model of `case`; UsageError, saying why, where it cannot."""
    if not isinstance(backend, Exporter):
        raise UsageError(f"backend {backend.name} exports nothing", where="export")
    support = backend.export_support(case)
    if not support.ok:
        raise UsageError(f"cannot be exported: {support.detail}", where=f"{case.model}-{case.scheme}")
    return backend


def _check_place(final: Path, asked: Path) -> None:
    """UsageError unless a folder can be put there without anything being lost."""
    if final.is_dir() and any(final.iterdir()):
        raise UsageError("is not empty", where=str(asked), remedy="name a new folder")
    if os.path.ismount(final):
        raise UsageError("is where a disk is mounted", where=str(asked), remedy="name a new folder in it")
    if final.exists() and not final.is_dir():
        raise UsageError("is no folder", where=str(asked), remedy="name a new one")
    if not final.parent.is_dir():
        raise UsageError("lies in no folder that exists", where=str(asked), remedy=f"mkdir -p {asked.parent}")


def _needed_bytes(case: Case, exporter: Exporter, final: Path) -> int:
    """What the disk of `final` must give: the folder and, where it lies there too and is not made yet, the artifact."""
    needed = exporter.export_bytes(case)
    made = cache.artifact_folder(case.model, case.arch, case.scheme, case.weights)
    if made.exists():
        return needed
    at = next(folder for folder in made.parents if folder.exists())
    return needed + (artifact_bytes(case.arch, case.scheme) if at.stat().st_dev == final.parent.stat().st_dev else 0)


@contextmanager
def _log(final: Path) -> Iterator[Path]:
    """A file for what the worker prints; it stays, and the error names it, where the worker failed."""
    log = final.with_name(f"{final.name}.{os.getpid()}.log")  # a name that nobody else gives a file
    try:
        yield log
    except CaseError as error:
        if log.exists():
            error.where = f"{error.where}, {log}" if error.where else str(log)
        raise
    except (BenchError, KeyboardInterrupt):
        log.unlink(missing_ok=True)
        raise
    log.unlink(missing_ok=True)


def write_sums(folder: Path, progress: Progress) -> None:
    """`SHA256SUMS` of all files in `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    total, done, lines = sum(path.stat().st_size for path in files), 0, []
    for path in files:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
                done += len(block)
                progress(done, total)
        lines.append(f"{digest.hexdigest()}  {path.relative_to(folder).as_posix()}\n")
    (folder / SUMS_NAME).write_text("".join(lines), "utf-8")
