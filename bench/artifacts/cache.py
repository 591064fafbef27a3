"""The cache folder: where artifacts, prepared folders and certificates live; made, listed, checked and removed.

artifacts/MODEL-SCHEME-WEIGHTS-KEY/{model.gguf, tensors.json, seal.json, reference/, reference-cutN/}
prepared/BACKEND-MODEL-SCHEME-KEY/{what the adapter wrote, seal.json}
certificates/KEY.json
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

from bench.api import Progress
from bench.artifacts.folders import (
    LOCK,
    PARTIAL,
    build_folder,
    folder_lock,
    folder_lock_if_free,
    remove_folder,
    remove_leftovers,
    staged_folder,
)
from bench.artifacts.layout import FORMAT_VERSION, GGUF_NAME, TABLE_NAME, arch_to_json
from bench.artifacts.reader import open_artifact
from bench.artifacts.seals import check_seal, is_sealed, seal, seal_digest
from bench.artifacts.synthesize import artifact_bytes, synthesize
from bench.artifacts.weights import WEIGHTS_VERSION
from bench.collector.host import memory_available_bytes
from bench.errors import PrerequisiteError, UsageError, unknown_name
from bench.types import Arch
from bench.units import render_bytes

__all__ = [
    "CacheEntry",
    "artifact_folder",
    "build_folder",
    "check_seal",
    "ensure_artifact",
    "entries",
    "prepared_folder",
    "prune",
    "root",
    "scratch_folder",
    "seal",
    "seal_digest",
    "verify",
]

MEMORY_BYTES = 512 << 20
"""What writing and reading an artifact takes, whatever its size."""

Kind = Literal["artifact", "prepared", "certificate"]
_PLACES: dict[Kind, str] = {"artifact": "artifacts", "prepared": "prepared", "certificate": "certificates"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """One folder of the cache, or one certificate, which is a file; `last_used_s` is Unix time."""

    path: Path
    kind: Kind
    name: str
    bytes: int
    last_used_s: float


def root() -> Path:
    """$BENCH_CACHE, or `evenbench` in the user's cache folder; not created."""
    given = os.environ.get("BENCH_CACHE")
    return Path(given).expanduser().absolute() if given else platformdirs.user_cache_path("evenbench")


def artifact_folder(model: str, arch: Arch, scheme: str, weights: str = "synthetic", seed: int = 0) -> Path:
    """Where this artifact is or will be: everything that decides its bits is in the name's key."""
    what = [FORMAT_VERSION, WEIGHTS_VERSION, model, arch_to_json(arch), scheme, weights, seed]
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    return root() / _PLACES["artifact"] / _file_name(f"{model}-{scheme}-{weights}-{key}")


def prepared_folder(backend: str, name: str, key: str) -> Path:
    """Where a backend's files for `name` (MODEL-SCHEME) are or will be; `key` covers what they depend on."""
    return root() / _PLACES["prepared"] / _file_name(f"{backend}-{name}-{key}")


def ensure_artifact(
    model: str,
    arch: Arch,
    scheme: str,
    weights: str = "synthetic",
    progress: Progress | None = None,
    seed: int = 0,
    force: bool = False,
) -> Path:
    """The folder of the artifact, written if it is not there yet, its seal checked if it is.

    `force` writes it again. `progress` counts bytes and is not called for a cached artifact. Raises UsageError for an
    unknown source of weights and PrerequisiteError where disk or memory are short or the cached files were altered.
    """
    if weights != "synthetic":
        raise UsageError(f"unknown source of weights {weights!r}", where="--weights", remedy="use synthetic")
    final = artifact_folder(model, arch, scheme, weights, seed)
    if not force and final.exists():
        return _checked(final)
    with folder_lock(final):
        if not force and final.exists():  # another process wrote it while this one waited
            return _checked(final)
        _check_memory()
        with staged_folder(final, artifact_bytes(arch, scheme)) as building:
            written = synthesize(building, model=model, arch=arch, scheme=scheme, seed=seed, progress=progress)
            seal(building, [TABLE_NAME, GGUF_NAME], known={GGUF_NAME: written.parts})
    return final


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """A place for a folder (not created) that is removed when the block ends, or by the next call after a kill."""
    place = root() / "scratch"
    _sweep(place)
    mine = place / _file_name(f"{name}-{os.getpid()}")
    with folder_lock(mine):
        mine.mkdir(exist_ok=True)
        try:
            yield mine / "folder"
        finally:
            shutil.rmtree(mine, ignore_errors=True)


def entries() -> list[CacheEntry]:
    """What is cached, least recently used first."""
    found = [
        CacheEntry(
            path=path,
            kind=kind,
            name=path.name,
            bytes=sum(file.lstat().st_size for file in (path, *path.rglob("*")) if file.is_file()),
            last_used_s=path.stat().st_mtime,
        )
        for kind, place in _PLACES.items()
        for path in (_certificates() if kind == "certificate" else _folders(root() / place))
    ]
    return sorted(found, key=lambda entry: entry.last_used_s)


def prune(older_than_s: float = 0.0, names: Sequence[str] = ()) -> list[CacheEntry]:
    """Remove what was not used for `older_than_s` seconds, and all leftovers of killed processes; what was removed.

    `names`: only these entries, each by its name or a beginning of it that no other has; UsageError where that names
    none or several. Folders that another process is building stay.
    """
    limit_s = time.time() - older_than_s
    removed = []
    for entry in _named(names):
        if entry.last_used_s > limit_s:
            continue
        with folder_lock_if_free(entry.path) as free:
            if free and entry.path.exists():
                if entry.kind == "certificate":
                    entry.path.unlink()
                else:
                    remove_folder(entry.path)
                removed.append(entry)
    for place in _PLACES.values():
        _remove_orphans(root() / place)
    for half in (root() / _PLACES["certificate"]).glob("*.partial"):
        half.unlink(missing_ok=True)  # whoever is writing it only makes it again
    _sweep(root() / "scratch")
    return removed


def verify(progress: Progress | None = None) -> list[PrerequisiteError]:
    """Read everything that is cached and compare it with its seals; one error a broken folder or certificate."""
    problems = [problem for path in _certificates() if (problem := _illegible(path))]
    cached = [entry.path for entry in entries() if entry.kind != "certificate"]
    sealed = [*cached, *(folder for path in cached for folder in _folders(path) if is_sealed(folder))]
    for number, folder in enumerate(sealed):
        try:
            check_seal(folder, full=True)
        except PrerequisiteError as problem:
            problems.append(problem)
        if progress:
            progress(number + 1, len(sealed))
    return problems


def _checked(final: Path) -> Path:
    check_seal(final)
    open_artifact(final)
    return final


def _check_memory() -> None:
    available_bytes = memory_available_bytes()
    if available_bytes < MEMORY_BYTES:
        raise PrerequisiteError(
            f"{render_bytes(available_bytes)} of memory available, {render_bytes(MEMORY_BYTES)} needed",
            where="synthesize",
            remedy="end other programs and try again",
        )


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.+-]", "_", name).lstrip(".")


def _folders(place: Path) -> list[Path]:
    """Finished folders: what is being built or removed starts with a dot."""
    if not place.is_dir():
        return []
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))


def _certificates() -> list[Path]:
    return sorted((root() / _PLACES["certificate"]).glob("[!.]*.json"))


def _named(names: Sequence[str]) -> list[CacheEntry]:
    """The entries that `names` mean, all where there are none."""
    found = entries()
    chosen = {_meant(name, [entry.name for entry in found]) for name in names}
    return [entry for entry in found if not names or entry.name in chosen]


def _meant(name: str, known: Sequence[str]) -> str:
    fitting = [name] if name in known else [each for each in known if name and each.startswith(name)]
    if not fitting:
        raise unknown_name("entry of the cache", name, known, remedy="`bench cache ls` shows the names")
    if len(fitting) > 1:
        some = ", ".join(fitting[:4]) + (", …" if len(fitting) > 4 else "")
        raise UsageError(
            f"{len(fitting)} entries of the cache begin with {name}: {some}", remedy="give more of the name"
        )
    return fitting[0]


def _illegible(certificate: Path) -> PrerequisiteError | None:
    """A certificate is small and has no seal: half a file is no JSON."""
    try:
        cause = None if isinstance(json.loads(certificate.read_bytes()), dict) else "altered"
    except (OSError, ValueError) as error:
        cause = f"{type(error).__name__}: {error}"
    if cause is None:
        return None
    return PrerequisiteError(
        "is no certificate",
        where=str(certificate),
        cause=cause,
        remedy=f"`bench cache prune {certificate.name}` removes it; it is made again when it is needed",
    )


def _sweep(place: Path) -> None:
    """Remove folders whose maker, who holds their lock, is gone."""
    for folder in _folders(place):
        with folder_lock_if_free(folder) as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)


def _remove_orphans(place: Path) -> None:
    """Remove half-built folders and locks whose maker is gone, also inside artifacts (their references)."""
    for folder in (place, *_folders(place)):
        hidden = [path.name for path in folder.glob(".*")] if folder.is_dir() else []
        finals = {re.sub(r"\.(\d+|old)$", "", name.removesuffix(PARTIAL)) for name in hidden if name.endswith(PARTIAL)}
        finals |= {name.removesuffix(LOCK) for name in hidden if name.endswith(LOCK)}
        for name in finals:
            final = folder / name[1:]
            with folder_lock_if_free(final) as free:
                if free:
                    remove_leftovers(final)
