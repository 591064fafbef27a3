"""Folders that appear whole or not at all: built aside under a lock, synced, renamed."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.errors import PrerequisiteError
from bench.units import render_bytes

PARTIAL = ".partial"
LOCK = ".lock"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)


@contextmanager
def build_folder(final: Path, needed_bytes: int = 0) -> Iterator[Path]:
    """An empty folder to write into, which becomes `final` (replacing it) when the block ends without an exception.

    Waits for other processes that build the same one; whatever they or killed ones left aside is removed. Raises
    PrerequisiteError where `needed_bytes` are not free, the disk fills up, or the place cannot be written.
    """
    with folder_lock(final), staged_folder(final, needed_bytes) as building:
        yield building


@contextmanager
def folder_lock(final: Path, remedy: str | None = None) -> Iterator[None]:
    """Hold the right to build or remove `final`; waits for whoever has it. Ends with the process, however it dies."""
    with _explained(final, 0, remedy):
        final.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(final, fcntl.LOCK_EX)
    try:
        yield
    finally:
        _unlock(final, descriptor)


@contextmanager
def folder_lock_if_free(final: Path) -> Iterator[bool]:
    """Like `folder_lock`, but yields False at once where another process holds it."""
    try:
        descriptor = _locked(final, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        _unlock(final, descriptor)


@contextmanager
def staged_folder(final: Path, needed_bytes: int = 0, remedy: str | None = None) -> Iterator[Path]:
    """`build_folder` for a caller that holds the lock already; `remedy` for folders outside of the cache."""
    with _explained(final, needed_bytes, remedy):
        remove_leftovers(final)
        free_bytes = shutil.disk_usage(final.parent).free
        if free_bytes < needed_bytes:
            raise _no_space(final, needed_bytes, free_bytes, remedy)
        building = final.with_name(f".{final.name}.{os.getpid()}{PARTIAL}")
        building.mkdir()
        try:
            yield building
            _commit(building, final)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def remove_folder(final: Path) -> None:
    """Remove `final` so that no half of it can ever be read; the caller holds its lock."""
    aside = final.with_name(f".{final.name}.old{PARTIAL}")
    shutil.rmtree(aside, ignore_errors=True)
    final.rename(aside)
    shutil.rmtree(aside)


def remove_leftovers(final: Path) -> None:
    """Remove what killed processes left beside `final`; the caller holds its lock, so nobody is at work there."""
    if final.parent.exists():
        for leftover in final.parent.iterdir():
            if leftover.name.startswith(f".{final.name}.") and leftover.name.endswith(PARTIAL):
                shutil.rmtree(leftover, ignore_errors=True)


def _commit(building: Path, final: Path) -> None:
    """Everything reaches the disk before the name does."""
    for folder, _, files in os.walk(building):
        for name in (*files, "."):
            _sync(Path(folder, name))
    if final.exists():
        remove_folder(final)
    building.rename(final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(final: Path, operation: int) -> int:
    path = final.with_name(f".{final.name}{LOCK}")
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, operation)
            # Whoever held it before has removed the file: a lock on a file without a name protects nothing.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _unlock(final: Path, descriptor: int) -> None:
    with suppress(OSError):
        final.with_name(f".{final.name}{LOCK}").unlink()
    os.close(descriptor)


@contextmanager
def _explained(final: Path, needed_bytes: int, remedy: str | None) -> Iterator[None]:
    """Errors of the disk as PrerequisiteError."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise _no_space(final, needed_bytes, shutil.disk_usage(_existing(final)).free, remedy) from error
        if error.errno in _NO_ACCESS:
            raise PrerequisiteError(
                f"cannot be written: {error.strerror}",
                where=error.filename or str(final.parent),
                remedy=remedy or "set BENCH_CACHE to a folder that can",
            ) from error
        raise


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _no_space(final: Path, needed_bytes: int, free_bytes: int, remedy: str | None) -> PrerequisiteError:
    needs = f", {render_bytes(needed_bytes)} ({needed_bytes} bytes) needed" if needed_bytes else ""
    return PrerequisiteError(
        f"disk full: {render_bytes(free_bytes)} ({free_bytes} bytes) free{needs}",
        where=str(final.parent),
        remedy=remedy or "execute `bench cache prune`, or set BENCH_CACHE to a folder on a larger disk",
    )
