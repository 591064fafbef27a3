"""Whether a store is sound: every file is read, and what one says is held against the others.

A record has no digest of its own bytes: a number edited in a way that stays a number is not seen here.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bench.errors import StoreError, UsageError
from bench.results.annotations import Annotation, annotation_files, read_annotation, targets
from bench.results.journal import journals, read_events
from bench.results.keys import config_key, precision_key, series_key
from bench.results.record import SCHEMA_VERSION, Record
from bench.results.store import Store, read_record, record_files

T = TypeVar("T")

_Held = dict[str, set[str]]
"""What the store holds, by the names of the targets of annotations."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be. Without `damage` nothing is lost or wrong: it only should be known."""

    problem: StoreError
    damage: bool = True


def verified(store: Store) -> Iterator[Finding]:
    """What is wrong with `store`: records, then journals, annotations, and what killed writers left."""
    held: _Held = defaultdict(set)
    # what tells of launches is read before them: others may be writing
    journals_read = [(path, _read(read_events, path)) for path in journals(store)]
    annotations_read = [(path, _read(read_annotation, path)) for path in annotation_files(store)]
    for path in store.launches():
        yield from (Finding(problem) for problem in _checked_launch(store, path, held))
    for path, events in journals_read:
        held["sweep_id"].add(path.stem)
        yield from [Finding(events)] if isinstance(events, StoreError) else _checked_journal(path, events, held)
    for path, said in annotations_read:
        yield from [Finding(said)] if isinstance(said, StoreError) else _checked_annotation(path, said, held)
    for path in _unfinished(store.root):
        cause = "a launch in progress, or what a killed writer left"
        yield _note("not finished", path, cause, "remove it when nothing is being executed")


def launch_damage(
    path: Path, place: Path, readable: Callable[[Record], object] = lambda _: None
) -> Iterator[StoreError]:
    """What is wrong with the launch in `path`, whose place in a store is `place`; `readable` gets what can be read."""
    if path.parts[-3:] != place.parts[-3:]:
        yield StoreError("a launch in the folder of another month", where=str(path), cause="it was copied or renamed")
    files = record_files(path)
    if not files:
        yield StoreError("a launch without a record", where=str(path), cause="something was removed from it")
    for file in files:
        try:
            record = read_record(file)
        except StoreError as error:
            yield error
            continue
        readable(record)
        if wrong := _wrong_keys(record):
            what = f"{', '.join(wrong)} cannot be computed from what it holds"
            yield StoreError(what, where=str(file), cause="the file was edited", remedy="restore it")


def _wrong_keys(record: Record) -> list[str]:
    """A redacted record lacks what was hashed; a newer version may know more of what has to be."""
    if record.info.redacted or _version(record.schema_version) > _version(SCHEMA_VERSION):
        return []
    raw = record.raw()
    made = {
        "series_key": series_key(raw["identity"]),
        "config_key": config_key(raw["identity"]),
        "precision_key": precision_key(raw.get("facts")),
    }
    return [name for name, key in made.items() if key != getattr(record, name)]


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def _checked_launch(store: Store, path: Path, held: _Held) -> Iterator[StoreError]:
    try:
        place = store.launch_path(path.name)
    except UsageError as error:
        yield StoreError(error.what, where=str(path), cause="it was renamed", remedy="move it out of the store")
        return
    held["launch_id"].add(path.name)
    held["record_id"].update(file.stem.removeprefix("record-") for file in record_files(path))  # damaged is not lost
    yield from launch_damage(path, place, partial(_hold, held))


def _hold(held: _Held, record: Record) -> None:
    for name, value in targets(record).items():
        held[name].add(value or "")


def _read(read: Callable[[Path], T], path: Path) -> T | StoreError:
    try:
        return read(path)
    except StoreError as error:
        return error


def _checked_journal(path: Path, events: list[dict[str, Any]], held: _Held) -> Iterator[Finding]:
    if not events:
        yield _note("interrupted before anything was planned", path, remedy="remove it")
    elif events[0]["sweep_id"] != path.stem:
        cause = "the file was copied or renamed"
        yield Finding(StoreError(f"the journal of sweep {events[0]['sweep_id'][:60]}", where=str(path), cause=cause))
    for event in events:
        told = event.get("record_ids", ())
        if lost := [each for each in told if each not in held["record_id"]]:
            yield Finding(
                StoreError(
                    f"{len(lost)} of {len(told)} records are not here that launch {event.get('launch_id')} committed",
                    where=str(path),
                    cause="they were removed, or only a part of the store was copied",
                    remedy="merge a store that has them: `bench results merge DIR`",
                )
            )


def _checked_annotation(path: Path, said: Annotation, held: _Held) -> Iterator[Finding]:
    name, value = said.target
    if value not in held[name]:
        what = f"is about {name.replace('_', ' ')} {value[:64]}, of which nothing is here"
        yield _note(what, path, remedy="merge the store that has it, or remove the annotation")


def _unfinished(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        aside = [name for name in sorted([*folders, *files]) if name.startswith(".") and name.endswith(".partial")]
        yield from (Path(folder, name) for name in aside)
        folders[:] = [name for name in folders if name not in aside]  # they may vanish while they are looked into


def _note(what: str, path: Path, cause: str | None = None, remedy: str | None = None) -> Finding:
    return Finding(StoreError(what, where=str(path), cause=cause, remedy=remedy), damage=False)
