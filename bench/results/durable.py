"""Writes that survive a kill or a power cut at any instruction: the only place of the store that changes the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def make_folders(path: Path) -> None:
    """Create `path` and its parents, each entry synced into its own parent."""
    missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
    for folder in reversed(missing):
        if folder.is_file():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder", str(folder))
        folder.mkdir(exist_ok=True)  # another process may have been faster
        sync(folder.parent)


def write_new(path: Path, data: bytes) -> None:
    """Create `path` with `data`, synced. FileExistsError if it is there already: nothing is ever overwritten."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        _write_all(file, data)
        os.fsync(file)
    finally:
        os.close(file)


def write_whole(path: Path, data: bytes) -> None:
    """Make `path` appear with `data`, whole or not at all, or replace it so; what a killed writer left is replaced too.

    The caller sees to it that no other process writes `path` meanwhile.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    write_new(partial, data)
    publish(partial, path)


def append_line(path: Path, line: bytes) -> None:
    """Append `line` and its newline in one write, synced; what a killed writer left of its last line is cut off."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        end = whole_lines_end(path.read_bytes())
        if os.fstat(file).st_size > end:
            os.ftruncate(file, end)
        os.lseek(file, end, os.SEEK_SET)
        _write_all(file, line + b"\n")
        os.fsync(file)
    finally:
        os.close(file)


def whole_lines_end(data: bytes) -> int:
    """Where the last whole line of `data` ends: what follows is a line that its writer did not live to finish."""
    return data.rfind(b"\n") + 1


def publish(partial: Path, final: Path) -> None:
    """Make `partial` appear as `final`, whole or not at all. A file is replaced, a folder that exists is OSError."""
    for path in sorted(partial.rglob("*")):
        if not path.is_symlink():
            sync(path)
    sync(partial)
    partial.rename(final)
    sync(final.parent)


def sync(path: Path) -> None:
    """fsync a file or a folder."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
