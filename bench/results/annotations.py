"""What people say of records, in files of their own, because a record never changes.

ROOT/annotations/YYYY/MM/ANNOTATION_ID.json

tag            a name for records of one sweep, series, machine, …
exclude        something was measured wrongly: it counts nowhere
quarantine     a series or machine is not to be trusted until a date: measured and shown, never alarmed about
acknowledged   a series or machine has changed for a known reason: what came before is another segment
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from bench.errors import StoreError
from bench.results.document import Document
from bench.results.durable import make_folders, write_whole
from bench.results.ids import UUID7_PATTERN, check_uuid7, uuid7_time
from bench.results.record import Record
from bench.results.store import Store

SCHEMA = "bench.annotation"
SCHEMA_VERSION = "1.0"

Kind = Literal["tag", "acknowledged", "quarantine", "exclude"]

MEASURED = ("record_id", "launch_id", "sweep_id")
LASTING = ("series_key", "config_key", "host_id")
TARGETS = MEASURED + LASTING
SAID_OF: dict[Kind, tuple[str, ...]] = {
    "tag": TARGETS,
    "exclude": MEASURED,
    "quarantine": LASTING,
    "acknowledged": LASTING,
}
"""Of what each kind may be said: of something measured once, or of something that is measured again and again."""

# a trailing newline passes a pattern's `$`, therefore the lengths and the look ahead
Uuid7 = Annotated[str, Meta(pattern=UUID7_PATTERN, max_length=36)]
Key = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:/+-]+$(?!\n)", max_length=64)]
Words = Annotated[str, Meta(min_length=1, max_length=1000)]
Moment = Annotated[str, Meta(max_length=40)]


class Annotation(Struct, frozen=True, kw_only=True):
    """One thing that somebody says of exactly one of TARGETS; ValueError for anything else.

    `at_utc` and `until_utc` (ISO 8601 with its zone) tell when it begins to hold and when it ends; the id tells when
    it was written. A quarantine without an end holds for ever.
    """

    schema: str = SCHEMA
    schema_version: str = SCHEMA_VERSION
    id: Uuid7
    kind: Kind
    record_id: Uuid7 | None = None
    launch_id: Uuid7 | None = None
    sweep_id: Uuid7 | None = None
    series_key: Key | None = None
    config_key: Key | None = None
    host_id: Words | None = None
    tag: Name | None = None
    reason: Words | None = None
    author: Words | None = None
    at_utc: Moment
    until_utc: Moment | None = None

    def __post_init__(self) -> None:
        named = [name for name in TARGETS if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"an annotation is about exactly one of {', '.join(TARGETS)}, not about {len(named)}")
        if named[0] not in SAID_OF[self.kind]:
            raise ValueError(f"`{self.kind}` is said of {', '.join(SAID_OF[self.kind])}, not of {named[0]}")
        if (self.kind == "tag") is (self.tag is None):
            raise ValueError("a tag has its name in `tag`, and nothing else has one")
        if self.kind != "tag" and self.reason is None:
            raise ValueError(f"`{self.kind}` needs a reason")
        if self.until_utc is not None and (self.kind != "quarantine" or utc(self.until_utc) <= utc(self.at_utc)):
            raise ValueError("only a quarantine ends, and after it began")
        utc(self.at_utc)

    @property
    def target(self) -> tuple[str, str]:
        """Of what it is said: the name of the field, and its value."""
        return next((name, value) for name in TARGETS if (value := getattr(self, name)) is not None)


_DOCUMENT = Document("annotation", SCHEMA, SCHEMA_VERSION, Annotation)


def annotate(store: Store, annotation: Annotation) -> None:
    """Write `annotation`, which has a fresh id; when this returns it survives a power cut.

    ValueError if it could not be read back, StoreError if it is there already or nothing can be written.
    """
    data = msgspec.json.encode(annotation) + b"\n"
    path = annotation_path(store, annotation.id)
    try:
        msgspec.json.decode(data, type=Annotation)
    except msgspec.ValidationError as error:
        raise ValueError(f"no valid annotation: {error}") from None
    with store.writing():
        if path.exists():
            raise StoreError("this annotation is written already", where=str(path))
        make_folders(path.parent)
        write_whole(path, data)


def annotation_path(store: Store, annotation_id: str) -> Path:
    """Where an annotation lies; UsageError if `annotation_id` is no UUIDv7."""
    annotation_id = check_uuid7(annotation_id, "annotation")
    return store.root / "annotations" / f"{uuid7_time(annotation_id):%Y/%m}" / f"{annotation_id}.json"


def annotation_files(store: Store) -> list[Path]:
    """The annotations of a store, in the order in which they were written."""
    found = (store.root / "annotations").glob("[0-9][0-9][0-9][0-9]/[0-9][0-9]/[0-9a-f]*.json")
    return sorted(found, key=lambda path: path.name)


def read_annotation(path: Path) -> Annotation:
    """The annotation in the file `path`; StoreError if it is damaged, or not of this name and month."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read the annotation: {error.strerror or error}", where=str(path)) from error
    read = _DOCUMENT.decode(data, str(path), lambda decoded: uuid7_time(decoded.id))
    if path.parts[-3:] != (f"{uuid7_time(read.id):%Y}", f"{uuid7_time(read.id):%m}", f"{read.id}.json"):
        raise StoreError(f"holds annotation {read.id}", where=str(path), cause="the file was copied or renamed")
    return read


class Annotations:
    """All annotations of a store, read once, and what they say of a record."""

    def __init__(self, said: Iterable[Annotation] = ()):
        self._of: dict[tuple[Kind, tuple[str, str]], list[Annotation]] = defaultdict(list)
        for each in sorted(said, key=_order):
            self._of[each.kind, each.target].append(each)

    @classmethod
    def of(cls, store: Store, unreadable: Callable[[StoreError], None] | None = None) -> Annotations:
        """Those of `store`; one that cannot be read is handed to `unreadable`, without which it is raised."""
        return cls(stored(store, unreadable))

    def tags(self, record: Record) -> set[str]:
        """Names given to the record, its launch, sweep, series, configuration or host."""
        return {each.tag for each in self._about(record, "tag") if each.tag}

    def excluded(self, record: Record) -> Annotation | None:
        """Why the record, its launch or its sweep counts nowhere."""
        return next(self._about(record, "exclude"), None)

    def quarantined(self, record: Record, at_utc: str | None = None) -> Annotation | None:
        """The quarantine of its series, configuration or host that holds at `at_utc`, else when it was measured."""
        when = utc(at_utc) if at_utc else measured_at(record)
        held = (each for each in self._about(record, "quarantine") if utc(each.at_utc) <= when)
        return next((each for each in held if each.until_utc is None or when < utc(each.until_utc)), None)

    def acknowledged(self, record: Record) -> Annotation | None:
        """The newest acknowledgement for its series, configuration or host that began at or before its measurement.

        Records with different answers belong to different segments.
        """
        when = measured_at(record)
        begun = [each for each in self._about(record, "acknowledged") if utc(each.at_utc) <= when]
        return max(begun, key=_order, default=None)

    def _about(self, record: Record, kind: Kind) -> Iterator[Annotation]:
        for name, value in targets(record).items():
            if value is not None:
                yield from self._of.get((kind, (name, value)), ())


def stored(store: Store, unreadable: Callable[[StoreError], None] | None = None) -> Iterator[Annotation]:
    """The annotations of `store` as they were written; one that cannot be read goes to `unreadable`, or is raised."""
    for path in annotation_files(store):
        try:
            read = read_annotation(path)
        except StoreError as error:
            if unreadable is None:
                raise
            unreadable(error)
            continue
        yield read


def targets(record: Record) -> dict[str, str | None]:
    """What of `record` an annotation can be about, by the names of TARGETS."""
    own = {name: getattr(record, name) for name in ("record_id", "launch_id", "series_key", "config_key")}
    return {**own, "sweep_id": record.info.sweep_id, "host_id": record.identity.host_id}


def measured_at(record: Record) -> datetime:
    """When its launch started, in UTC; where that is not told, when the launch got its id."""
    try:
        return utc(record.info.started_at_utc or "")
    except ValueError:  # of an import it is whatever stood in the file
        return uuid7_time(record.launch_id)


def utc(text: str) -> datetime:
    """ISO 8601 with its zone as UTC; ValueError for anything else."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:40]!r} is no moment such as 2026-01-02T03:04:05Z") from None


def _order(annotation: Annotation) -> tuple[datetime, str]:
    return utc(annotation.at_utc), annotation.id


def json_schema() -> dict[str, Any]:
    """JSON Schema of an annotation; committed as annotation.schema.json."""
    schema = _DOCUMENT.json_schema()
    one = [{"required": [name], "properties": {name: {"type": "string"}}} for name in TARGETS]
    schema["$defs"]["Annotation"]["oneOf"] = one
    return schema
