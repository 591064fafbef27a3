"""Folders from which a worker imports this project and the adapter, and nothing else."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from bench.artifacts import cache
from bench.artifacts.folders import build_folder

PROJECT = Path(__file__).parents[2]
"""The checkout, or the folder into which a wheel was installed."""
IGNORED = "__pycache__"


def code_folders(adapter: str, *, shared: bool) -> list[Path]:
    """What belongs on the PYTHONPATH of a worker for `adapter` (`module:Attribute`).

    `shared`: the worker's interpreter is this one. To another, a folder of installed packages must not be shown: it
    would import numpy and the runtime from there. It gets a copy of this project's and the adapter's packages alone.
    """
    folders: list[Path] = []
    for name in dict.fromkeys(["bench", "backends", adapter.partition(":")[0].partition(".")[0]]):
        source = _source(name)
        if source is None:  # only the other interpreter has it
            continue
        installed = next(source.parent.glob("*.dist-info"), None) is not None
        folders.append(_copied(source) if installed and not shared else source.parent)
    return list(dict.fromkeys(folders))


def adapter_digest(adapter: str) -> str | None:
    """Of the code of `module:Attribute`: its package or its file; None where only another interpreter has it."""
    source = _source(adapter.partition(":")[0])
    if source is None:
        return None
    digest = hashlib.sha256()
    for file in _files(source):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _source(name: str) -> Path | None:
    """The folder of a package, or the file of a module; imports nothing but the packages that it lies in."""
    found = find_spec(name)
    if found is None:
        return None
    if found.submodule_search_locations:
        return Path(next(iter(found.submodule_search_locations)))
    return Path(found.origin) if found.origin else None


def _copied(source: Path) -> Path:
    """A folder of the cache that holds a copy of `source` and nothing else."""
    digest = hashlib.sha256(source.name.encode())
    for file in _files(source):
        digest.update(f"{file.relative_to(source.parent)}\0".encode() + file.read_bytes())
    final = cache.root() / "code" / f"{source.stem}-{digest.hexdigest()[:16]}"
    if not final.exists():
        with build_folder(final) as building:
            for file in _files(source):
                copy = building / file.relative_to(source.parent)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
    return final


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
    else:
        yield from sorted(file for file in source.rglob("*") if file.is_file() and IGNORED not in file.parts)
