"""The journal of a sweep: what was planned and what became of it, so that `--resume` executes only what is missing.

One line of JSON per event in ROOT/sweeps/SWEEP_ID.jsonl, written by the one process that holds it:

    planned      sweep_id, case_keys, plan (the caller's own, opaque here)
    started      launch_id, case_keys
    committed    launch_id, record_ids
    interrupted  launch_id
    finished

The journal only says where to look. A case is done when the store holds its record: a kill between a launch's rename
and its `committed` line loses nothing and repeats nothing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bench.errors import BusyError, StoreError, UsageError
from bench.results.durable import append_line, make_folders, sync, whole_lines_end, write_new
from bench.results.ids import UUID7_PATTERN, check_uuid7, new_uuid7
from bench.results.record import Record
from bench.results.store import Store


class Journal:
    """One sweep. Its records carry `info.sweep_id` and `info.case_key`."""

    def __init__(self, store: Store, sweep_id: str, events: list[dict[str, Any]]):
        self._store, self.sweep_id, self._events = store, sweep_id, events
        self.path = _path(store, sweep_id)

    @classmethod
    def create(cls, store: Store, plan: Mapping[str, Any], case_keys: Sequence[str]) -> Journal:
        """The journal of a new sweep over `case_keys`, in the order of execution; `plan` must survive JSON."""
        if len(set(case_keys)) != len(case_keys):
            raise ValueError("case keys of a sweep must differ: add the launch's index to them")
        sweep_id = new_uuid7()
        event = {"event": "planned", "sweep_id": sweep_id, "case_keys": list(case_keys), "plan": dict(plan)}
        path = _path(store, sweep_id)
        with store.writing():
            make_folders(path.parent)
            write_new(path, msgspec.json.encode(event) + b"\n")
            sync(path.parent)
        return cls(store, sweep_id, [event])

    @classmethod
    def open(cls, store: Store, sweep_id: str) -> Journal:
        """The journal of a sweep by its id; UsageError if there is none, StoreError if it is corrupt."""
        path = _path(store, sweep_id)
        if not path.is_file():
            raise UsageError(f"no sweep {sweep_id}", where=str(store.root), remedy="give --resume without an id")
        events = read_events(path)
        if not events:
            raise UsageError(
                f"sweep {sweep_id} was interrupted before anything was planned",
                where=str(path),
                remedy="start it again without --resume",
            )
        return cls(store, check_uuid7(sweep_id, "sweep"), events)

    @classmethod
    def open_latest_unfinished(
        cls, store: Store, which: Callable[[Mapping[str, Any]], bool] = lambda plan: True
    ) -> Journal | None:
        """The newest sweep, of those whose plan `which` takes, that still misses cases; None if there is none."""
        for path in reversed(journals(store)):
            if events := read_events(path):
                journal = cls(store, path.stem, events)
                if not journal.finished and which(journal.plan) and journal.missing():
                    return journal
        return None

    @property
    def plan(self) -> dict[str, Any]:
        """What `create` was given."""
        plan: dict[str, Any] = self._events[0]["plan"]
        return plan

    @property
    def case_keys(self) -> list[str]:
        """All planned cases, in the order of execution."""
        return list(self._events[0]["case_keys"])

    @property
    def finished(self) -> bool:
        return bool(self._events[-1]["event"] == "finished")

    @contextmanager
    def held(self) -> Iterator[None]:
        """The right to execute this sweep, until the block or the process ends, however it dies.

        What was written before is read again. BusyError where another process has it.
        """
        with holding(self._store, self.path):
            self._events = read_events(self.path)
            yield

    def started(self, launch_id: str, case_keys: Iterable[str]) -> None:
        """A launch is about to execute `case_keys`. Call it before the launch is committed, or it cannot be found."""
        self._append({"event": "started", "launch_id": launch_id, "case_keys": list(case_keys)})

    def committed(self, launch_id: str, record_ids: Iterable[str]) -> None:
        """The store has the launch."""
        self._append({"event": "committed", "launch_id": launch_id, "record_ids": list(record_ids)})

    def interrupted(self, launch_id: str) -> None:
        """The launch ended without being committed: Ctrl-C, or the harness failed."""
        self._append({"event": "interrupted", "launch_id": launch_id})

    def finish(self) -> None:
        """Nothing is left to do: `open_latest_unfinished` passes this sweep over from now on."""
        self._append({"event": "finished"})

    def records(self) -> list[Record]:
        """What the store has of this sweep, oldest launch first."""
        launch_ids = sorted({event["launch_id"] for event in self._events if event["event"] == "started"})
        return [record for launch_id in launch_ids for record in self._store.launch_records(launch_id)]

    def missing(self) -> list[str]:
        """Planned cases without a record in the store, in the order of execution. The record's status is no matter."""
        done = {record.info.case_key for record in self.records()}
        return [key for key in self.case_keys if key not in done]

    def _append(self, event: dict[str, Any]) -> None:
        with self._store.writing():
            append_line(self.path, msgspec.json.encode(event))
        self._events.append(event)


@contextmanager
def holding(store: Store, path: Path) -> Iterator[None]:
    """The right to change the journal at `path`, until the block or the process ends. BusyError if another has it."""
    with store.writing():
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        with store.writing():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                taken = not os.path.samestat(os.fstat(file), path.stat())  # a merge has just replaced it
            except BlockingIOError:
                taken = True
        if taken:
            raise BusyError(
                f"sweep {path.stem} is being executed by another process",
                where=str(store.root),
                remedy="wait until it ends, or interrupt it first",
            )
        yield
    finally:
        os.close(file)


def journals(store: Store) -> list[Path]:
    """The journals of a store, oldest sweep first."""
    return sorted((store.root / "sweeps").glob("*.jsonl"))


def _path(store: Store, sweep_id: str) -> Path:
    return store.root / "sweeps" / f"{check_uuid7(sweep_id, 'sweep')}.jsonl"


def read_events(path: Path) -> list[dict[str, Any]]:
    """Events of the journal at `path`; empty if its writer died in the first line. StoreError if it is corrupt."""
    return [msgspec.json.decode(line) for line in read_lines(path)]


def read_lines(path: Path) -> list[bytes]:
    """The same as they stand there, without their newlines."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read the journal: {error.strerror or error}", where=str(path)) from error
    lines = data[: whole_lines_end(data)].splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            msgspec.json.decode(line.decode(), type=_Event if number > 1 else _Planned)
            msgspec.json.decode(line)  # the typed one passes over what it does not know
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise StoreError(
                f"corrupt journal, line {number}: {error}",
                where=str(path),
                cause="the file was edited",
                remedy="move it out of the store; its records stay",
            ) from None
    return lines


class _Planned(msgspec.Struct, tag_field="event", tag="planned"):
    """What the first line must hold."""

    sweep_id: str
    case_keys: list[str]
    plan: dict[str, Any]


class _Event(msgspec.Struct):
    """What every other line must hold."""

    event: str
    launch_id: Annotated[str, Meta(pattern=f"^$|{UUID7_PATTERN}", max_length=36)] = ""
    record_ids: list[str] = []
