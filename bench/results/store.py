"""The store: every launch is one immutable folder, written aside and renamed.

    ROOT/launches/YYYY/MM/LAUNCH_ID/record-RECORD_ID.json …, events.jsonl, worker.log
    ROOT/sweeps/SWEEP_ID.jsonl
    ROOT/annotations/YYYY/MM/ANNOTATION_ID.json

Readers ignore `.LAUNCH_ID.partial`, which is what a killed writer leaves. Names are unique and files never change, so
that stores merge by union (merging.py).
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from bench.errors import StoreError, UsageError
from bench.results.durable import make_folders, publish, write_new
from bench.results.ids import check_uuid7, new_uuid7, uuid7_time
from bench.results.record import Record, decode, encode

_LAUNCHES = "[0-9][0-9][0-9][0-9]/[0-9][0-9]/[0-9a-f]*"
_PART_OF_ID = re.compile(r"[0-9a-f-]{4,36}")


class Store:
    """The records under one folder, which is created by the first write."""

    def __init__(self, root: Path):
        self.root = root

    def check_writable(self) -> None:
        """StoreError naming the folder if nothing can be written here: asked before hours of measuring."""
        with self.writing():
            make_folders(self.root)
            probe = self.root / f".{new_uuid7()}.partial"
            write_new(probe, b"probe\n")
            probe.unlink()

    def launch(self, launch_id: str) -> Draft:
        """The draft of a new launch: `with store.launch(id) as draft` commits it where the block ends normally."""
        return Draft(self, launch_id)

    def launch_path(self, launch_id: str) -> Path:
        """Where a launch lies once it is committed; UsageError if `launch_id` is no UUIDv7."""
        launch_id = check_uuid7(launch_id, "launch")
        return self.root / "launches" / f"{uuid7_time(launch_id):%Y/%m}" / launch_id

    def launches(self) -> list[Path]:
        """Folders of the committed launches, oldest first."""
        return sorted((self.root / "launches").glob(_LAUNCHES), key=lambda path: path.name)

    def records(
        self,
        where: Callable[[Record], bool] | None = None,
        unreadable: Callable[[StoreError], None] | None = None,
    ) -> Iterator[Record]:
        """Committed records for which `where` holds, oldest launch first.

        A record that cannot be read is handed to `unreadable` as its StoreError and the others follow; without
        `unreadable` it is raised.
        """
        for path in (file for launch in self.launches() for file in record_files(launch)):
            try:
                record = read_record(path)
            except StoreError as error:
                if unreadable is None:
                    raise
                unreadable(error)
                continue
            if where is None or where(record):
                yield record

    def launch_records(self, launch_id: str) -> list[Record]:
        """The records of one launch; empty if it was never committed."""
        return [read_record(path) for path in record_files(self.launch_path(launch_id))]

    def find(self, id_part: str) -> Record:
        """The one record whose id begins or ends with `id_part` (4 characters or more).

        UsageError if `id_part` cannot be part of an id, matches nothing or more than one; StoreError if it is corrupt.
        """
        wanted = id_part.lower()
        if len(wanted) >= 36:
            check_uuid7(wanted)
        elif not _PART_OF_ID.fullmatch(wanted):
            raise UsageError(
                f"not a record id: {id_part[:60]!r}",
                cause="an id, or 4 or more characters of its beginning or end, is made of 0-9, a-f and -",
                remedy="`bench table` lists the records",
            )
        found: dict[str, Path] = {}
        for path in (file for launch in self.launches() for file in record_files(launch)):
            record_id = path.stem.removeprefix("record-")
            if record_id.startswith(wanted) or record_id.endswith(wanted):
                found[record_id] = path
        if len(found) == 1:
            return read_record(next(iter(found.values())))
        if not found:
            raise UsageError(f"no record {id_part}", where=str(self.root), remedy="`bench table` lists the records")
        some = ", ".join(list(found)[:4]) + (", …" if len(found) > 4 else "")
        raise UsageError(f"{len(found)} records match {id_part}: {some}", remedy="give more of the id, or its end")

    def leftovers(self) -> list[Path]:
        """Folders that killed writers left, for `bench doctor`; a launch in progress is among them."""
        return sorted((self.root / "launches").glob("*/*/.*.partial"))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What fails to be written inside becomes a StoreError that names the folder and what to do."""
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            remedy = "free some space" if full else "make it writable"
            raise StoreError(
                f"cannot write to the results store: {error.strerror or error}",
                where=str(error.filename or self.root),
                remedy=f"{remedy}, or name another folder with --results DIR",
            ) from error


class Draft:
    """A launch that is being written. `path` is the folder aside, for the worker's events and log.

    As a context manager: committed where the block ends normally. An exception leaves the folder aside in place, as a
    kill would, so that its log can be read; `discard` removes it.
    """

    def __init__(self, store: Store, launch_id: str):
        self._store = store
        self.launch_id = check_uuid7(launch_id, "launch")
        self._final = store.launch_path(self.launch_id)
        self.path = self._final.with_name(f".{self.launch_id}.partial")
        self._records = 0
        self._open = True
        with store.writing():
            make_folders(self.path.parent)
            if self._final.exists():
                raise StoreError("this launch is committed already", where=str(self._final))
            self.path.mkdir()

    def add(self, record: Record) -> None:
        """Write `record` aside; readers see it after `commit`. ValueError if it belongs to another launch."""
        if record.launch_id != self.launch_id:
            raise ValueError(f"record {record.record_id} belongs to launch {record.launch_id}, not {self.launch_id}")
        data = encode(record)
        with self._store.writing():
            write_new(self.path / f"record-{check_uuid7(record.record_id)}.json", data)
        self._records += 1

    def commit(self) -> None:
        """Make the launch appear in the store; when this returns it survives a power cut. Again: does nothing."""
        if not self._open:
            return
        if not self._records:
            raise ValueError(f"launch {self.launch_id} has no record: add one or discard it")
        with self._store.writing():
            publish(self.path, self._final)
        self._open, self.path = False, self._final

    def discard(self) -> None:
        """Remove what was written aside; does nothing after `commit`."""
        if self._open:
            self._open = False
            with self._store.writing():
                shutil.rmtree(self.path)

    def __enter__(self) -> Draft:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()


def record_files(launch: Path) -> list[Path]:
    """The records in the folder of a launch."""
    return sorted(launch.glob("record-*.json"))


def read_record(path: Path) -> Record:
    """The record in the file `path`; StoreError if it is damaged, or not of this name and launch."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read the record: {error.strerror or error}", where=str(path)) from error
    record = decode(data, path)
    if path.name != f"record-{record.record_id}.json" or path.parent.name != record.launch_id:
        raise StoreError(
            f"holds record {record.record_id} of launch {record.launch_id}",
            where=str(path),
            cause="the file was copied or renamed",
        )
    return record
