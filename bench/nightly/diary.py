"""The diary of a night: which sweeps it began and which suspects it confirmed, so that a killed one goes on.

    ROOT/nights/NIGHT_ID.jsonl

One line of JSON per event: `began` (the plan's digest), `sweep` (number of the entry, sweep_id), `confirmed` (key of
the series, ratios), `told`. It only says where to look: what was measured lies in the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec

from bench.nightly.plan import Entry
from bench.results.durable import append_line, make_folders, whole_lines_end
from bench.results.ids import new_uuid7, uuid7_time
from bench.results.store import Store

LASTS = timedelta(hours=20)
"""A night that was left longer ago is not gone on with: tonight's cases would be compared with themselves."""


class Diary:
    """One night, held by the process that writes it."""

    def __init__(self, store: Store, path: Path, events: list[dict[str, Any]]):
        self._store, self._path, self._events = store, path, events

    @classmethod
    def tonight(cls, store: Store, entries: Sequence[Entry], now: datetime | None = None) -> Diary:
        """The newest night of the same entries that was not told and is not old; else a new one."""
        digest = hashlib.sha256(msgspec.json.encode([[each.request, each.python] for each in entries])).hexdigest()
        now = now or datetime.now(timezone.utc)
        for path in sorted((store.root / "nights").glob("*.jsonl"), reverse=True):
            if now - uuid7_time(path.stem) > LASTS:
                break
            events = list(_read(path))
            if events and events[0].get("digest") == digest and events[-1]["event"] != "told":
                return cls(store, path, events)
        path = store.root / "nights" / f"{new_uuid7()}.jsonl"
        diary = cls(store, path, [])
        diary._note("began", digest=digest)
        return diary

    @property
    def night_id(self) -> str:
        return self._path.stem

    def sweep_of(self, entry: Entry) -> str | None:
        """The sweep that executes `entry` tonight; None where none was begun."""
        return next((each["sweep_id"] for each in self._of("sweep") if each["number"] == entry.number), None)

    def began(self, entry: Entry, sweep_id: str) -> None:
        self._note("sweep", number=entry.number, sweep_id=sweep_id)

    def ratios(self, series: str) -> list[float] | None:
        """Of the pairs by which a suspect was confirmed tonight; None where it was not yet."""
        return next((each["ratios"] for each in self._of("confirmed") if each["series"] == series), None)

    def confirmed(self, series: str, ratios: Sequence[float]) -> None:
        self._note("confirmed", series=series, ratios=list(ratios))

    def told(self) -> None:
        """What was found has been said: the next call begins another night."""
        self._note("told")

    def _of(self, event: str) -> Iterator[dict[str, Any]]:
        return (each for each in self._events if each["event"] == event)

    def _note(self, event: str, **more: Any) -> None:
        noted = {"event": event, **more}
        with self._store.writing():
            make_folders(self._path.parent)
            append_line(self._path, msgspec.json.encode(noted))
        self._events.append(noted)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines; none of a file that is no diary: then the night begins anew, and nothing measured is lost."""
    data = path.read_bytes()
    for line in data[: whole_lines_end(data)].splitlines():
        try:
            event = msgspec.json.decode(line)
        except msgspec.DecodeError:
            return
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            return
        yield event
