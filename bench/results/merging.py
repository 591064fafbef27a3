"""The union of two stores: launches, sweeps and annotations of several machines in one place.

The order in which stores are merged does not matter, nor does merging one again: names are unique, files never change,
and journals, the only files that grow, have one order of lines. What lies under one name with other bytes is damage:
told, and left as it is in both stores. A launch in progress is not taken; merge again when it is committed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench.errors import StoreError, UsageError
from bench.results.annotations import annotation_files, annotation_path, read_annotation
from bench.results.durable import append_line, make_folders, publish, write_new, write_whole
from bench.results.ids import check_uuid7
from bench.results.journal import holding, journals, read_lines
from bench.results.record import decode
from bench.results.redact import redact
from bench.results.store import Store
from bench.results.verifying import launch_damage

LOCK = ".merging.lock"
_ORDER = ("started", "committed", "interrupted")


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of each launch, sweep and annotation of the source: how many by kind, and why some were left out."""

    added: Counter[str] = field(default_factory=Counter)
    present: Counter[str] = field(default_factory=Counter)
    damaged: list[StoreError] = field(default_factory=list)


def merged(into: Store, source: Store) -> Merged:
    """Add to `into` what `source` has and it lacks. Killed at any instruction, it can be done again.

    One merge at a time writes into a store; others wait. StoreError where `into` cannot be written or `source` cannot
    be listed, BusyError where a sweep is being executed whose journal would have to change.
    """
    done = Merged()
    _check_listed(source)
    # launches before journals, so that no journal asks for what has still to come
    kinds: tuple[tuple[str, list[Path], Callable[[Store, Path], bool]], ...] = (
        ("launch", source.launches(), _add_launch),
        ("sweep", journals(source), _add_journal),
        ("annotation", annotation_files(source), _add_annotation),
    )
    with into.writing(), _alone(into):
        for kind, paths, add in kinds:
            for path in paths:
                try:
                    counted = done.added if add(into, path) else done.present
                except (StoreError, UsageError) as error:
                    done.damaged.append(_left_out(error, path))
                else:
                    counted[kind] += 1
    return done


def _add_launch(into: Store, path: Path) -> bool:
    """Whether anything was missing: the launch appears whole, or gets the files that it lacks."""
    final = into.launch_path(path.name)
    for damage in launch_damage(path, final):
        raise damage
    files = {file.name: _read(file) for file in sorted(path.iterdir()) if not file.name.startswith(".")}
    if not final.is_dir():
        _write_launch(final, files)
        return True
    missing = {name: data for name, data in files.items() if not (final / name).exists()}
    for name in files.keys() - missing.keys():
        _check_same(final / name, files[name], path / name)
    for name in sorted(missing, key=lambda name: (name.startswith("record-"), name)):  # nobody reads the others alone
        write_whole(final / name, missing[name])
    return bool(missing)


def _write_launch(final: Path, files: dict[str, bytes]) -> None:
    aside = final.with_name(f".{final.name}.partial")
    if aside.exists():  # of a killed merge: a launch that is committed elsewhere is in progress nowhere
        shutil.rmtree(aside)
    make_folders(aside.parent)
    aside.mkdir()
    for name, data in files.items():
        write_new(aside / name, data)
    publish(aside, final)


def _add_journal(into: Store, path: Path) -> bool:
    """Whether lines were missing. They are appended where that gives the order of lines, else it is written anew."""
    theirs = read_lines(path)
    final = into.root / "sweeps" / f"{check_uuid7(path.stem, 'sweep')}.jsonl"
    if not theirs or (final.exists() and read_lines(final) == theirs):
        return False
    if not final.exists():
        make_folders(final.parent)
        write_whole(final, _joined(theirs))
        return True
    with holding(into, final):
        mine = read_lines(final)
        union = _union(mine, theirs, final)
        if union[: len(mine)] == mine:
            for line in union[len(mine) :]:
                append_line(final, line)
        else:
            write_whole(final, _joined(union))
    return union != mine


def _union(mine: list[bytes], theirs: list[bytes], final: Path) -> list[bytes]:
    """The lines of both in the one order that does not depend on who comes first, and that a sweep writes them in."""
    if not mine:
        return theirs
    if mine[0] != theirs[0]:
        raise StoreError("another sweep has the same id", where=str(final))
    return [theirs[0], *sorted({*mine[1:], *theirs[1:]}, key=_place)]


def _place(line: bytes) -> tuple[bool, str, int, bytes]:
    event = msgspec.json.decode(line)
    name, launch_id = event["event"], event.get("launch_id", "")
    return name == "finished", launch_id, _ORDER.index(name) if name in _ORDER else len(_ORDER), line


def _joined(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _add_annotation(into: Store, path: Path) -> bool:
    final, data = annotation_path(into, read_annotation(path).id), _read(path)
    if final.exists():
        _check_same(final, data, path)
        return False
    make_folders(final.parent)
    write_whole(final, data)
    return True


def _check_same(mine: Path, theirs: bytes, path: Path) -> None:
    """StoreError unless both hold the same; a redacted record stands for its original, and stays as it is."""
    ours = _read(mine)
    if ours == theirs:
        return
    if mine.name.startswith("record-"):
        one, other = decode(ours, mine), decode(theirs, path)
        if one.info.redacted != other.info.redacted and redact(one).raw() == redact(other).raw():
            return
    raise StoreError(
        f"differs from {mine}",
        where=str(path),
        cause="one of them was edited or damaged",
        remedy="remove the wrong one and merge again",
    )


def _read(path: Path) -> bytes:
    """A regular file: a link in a foreign store could lead to anything that its reader may read."""
    try:
        if path.is_symlink() or not path.is_file():
            raise StoreError("is no file", where=str(path), cause="a link or a folder", remedy="remove it")
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot be read: {error.strerror or error}", where=str(path)) from error


def _check_listed(source: Store) -> None:
    """StoreError for a folder that cannot be listed: a search would pass it over in silence."""

    def refuse(error: OSError) -> None:
        if isinstance(error, FileNotFoundError):  # a launch that has just been committed under its name
            return
        what = f"cannot be listed: {error.strerror or error}"
        raise StoreError(what, where=str(error.filename), remedy="make it readable, then merge again") from error

    for _ in os.walk(source.root, onerror=refuse):
        pass


def _left_out(error: StoreError | UsageError, path: Path) -> StoreError:
    return error if isinstance(error, StoreError) else StoreError(error.what, where=str(path), cause=error.cause)


@contextmanager
def _alone(into: Store) -> Iterator[None]:
    """No other merge writes into `into` until the block or the process ends."""
    make_folders(into.root)
    file = os.open(into.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with suppress(PermissionError):  # it is another user's, who has done it
            os.fchmod(file, 0o666)
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
