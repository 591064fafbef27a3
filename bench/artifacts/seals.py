"""Seals: the digests of a folder's files, so that what was truncated or altered since is never read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from bench.api import Progress
from bench.errors import PrerequisiteError

SEAL_NAME = "seal.json"
SEAL_VERSION = 1
PART_BYTES = 64 << 20
READ_BYTES = 1 << 20

Part = tuple[int, int, str]
"""(offset, bytes, sha256 in hex); the parts of a file may leave out padding that nobody reads."""


def seal(folder: Path, files: Iterable[str], known: Mapping[str, Sequence[Part]] | None = None) -> None:
    """Write `seal.json`: size, digests and stamp of each file, named relative to `folder`.

    `known` spares reading files again whose parts were digested while they were written.
    """
    entries: dict[str, Any] = {}
    for name in files:
        path = _inside(folder, name)
        parts = (known or {}).get(name) or _digested(path, _even_parts(path.stat().st_size))
        entries[name] = {**_stamp(path), "parts": [list(part) for part in parts]}
    _write(folder, entries)


def check_seal(folder: Path, full: bool = False, progress: Progress | None = None) -> None:
    """Raise PrerequisiteError, naming the file, unless all files are what was sealed.

    A file whose size, modification time and inode are as sealed is trusted; any other is read and its digests are
    compared. `full` reads every file. `progress` counts bytes of the whole folder.
    """
    entries = _read(folder)
    total = sum(entry["bytes"] for entry in entries.values())
    done, moved = 0, False
    for name, entry in entries.items():
        path = _inside(folder, name)
        try:
            stamp = _stamp(path)
        except OSError as error:
            raise _broken(folder, name, "is missing", "removed by hand") from error
        if stamp["bytes"] != entry["bytes"]:
            what = f"has {stamp['bytes']} bytes instead of {entry['bytes']}"
            raise _broken(folder, name, what, "truncated or altered")
        stale = any(stamp[key] != entry[key] for key in stamp)
        parts = [(offset, size, sha) for offset, size, sha in entry["parts"]]
        if (stale or full) and _digested(path, [part[:2] for part in parts]) != parts:
            raise _broken(folder, name, "is not what was sealed", "altered")
        entry.update(stamp)
        moved |= stale
        done += entry["bytes"]
        if progress:
            progress(done, total)
    with suppress(OSError):  # a cache that cannot be written is a good cache still
        if moved:
            _write(folder, entries)
        if not full:
            os.utime(folder)  # used now: `bench cache prune` goes by it


def seal_digest(folder: Path) -> str:
    """Hex digest of everything that is sealed in `folder`, whatever its stamps."""
    content = {name: [entry["bytes"], entry["parts"]] for name, entry in _read(folder).items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_sealed(folder: Path) -> bool:
    """Whether `folder` has a seal at all."""
    return (folder / SEAL_NAME).exists()


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "inode": status.st_ino}


def _even_parts(size: int) -> list[tuple[int, int]]:
    return [(start, min(PART_BYTES, size - start)) for start in range(0, size, PART_BYTES)]


def _digested(path: Path, ranges: Sequence[tuple[int, int]]) -> list[Part]:
    """Digests of byte ranges, on all cores: hashlib releases the interpreter's lock."""
    with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
        digests = pool.map(lambda r: _digest(path, *r), ranges)
        return [(start, size, digest) for (start, size), digest in zip(ranges, digests, strict=True)]


def _digest(path: Path, start: int, size: int) -> str:
    sha = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        for piece in _pieces(size):
            sha.update(file.read(piece))
    return sha.hexdigest()


def _pieces(size: int) -> Iterator[int]:
    while size > 0:
        yield min(size, READ_BYTES)
        size -= READ_BYTES


def _inside(folder: Path, name: str) -> Path:
    """The file `name` of `folder`; a seal cannot lead anywhere else."""
    plain = PurePosixPath(name)
    if plain.is_absolute() or ".." in plain.parts or not plain.parts:
        raise _broken(folder, SEAL_NAME, f"names {name!r}, which is outside the folder", "altered")
    return folder / plain


def _read(folder: Path) -> dict[str, Any]:
    path = folder / SEAL_NAME
    try:
        content = json.loads(path.read_text("utf-8"))
        version, entries = content["version"], dict(content["files"])
        for entry in entries.values():
            _check_entry(entry)
    except FileNotFoundError as error:
        raise _broken(folder, SEAL_NAME, "is missing", "never finished, or removed by hand") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _broken(folder, SEAL_NAME, "cannot be read", f"{type(error).__name__}: {error}") from error
    if version != SEAL_VERSION:
        raise _broken(folder, SEAL_NAME, f"version {version} is not {SEAL_VERSION}", "written by another version")
    return entries


def _check_entry(entry: dict[str, Any]) -> None:
    for key in ("bytes", "mtime_ns", "inode"):
        if not isinstance(entry[key], int):
            raise TypeError(f"{key} is no integer")
    for offset, size, digest in entry["parts"]:
        if not 0 <= offset <= offset + size <= entry["bytes"] or not isinstance(digest, str):
            raise ValueError("a part lies outside its file")


def _write(folder: Path, entries: dict[str, Any]) -> None:
    path = folder / SEAL_NAME
    aside = path.with_name(f".{SEAL_NAME}.{os.getpid()}.partial")
    aside.write_text(json.dumps({"version": SEAL_VERSION, "files": entries}) + "\n", "utf-8")
    aside.replace(path)


def _broken(folder: Path, name: str, what: str, cause: str) -> PrerequisiteError:
    nested = is_sealed(folder.parent)  # a reference inside its artifact mends itself
    remedy = "" if nested else f"`bench cache prune {folder.name}` removes it; "
    return PrerequisiteError(
        what, where=str(folder / name), cause=cause, remedy=f"{remedy}it is made again when it is needed"
    )
