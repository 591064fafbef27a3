"""Annotations: their bytes, what they may be about, and what they say of a record at which time."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import StoreError, UsageError
from bench.results.annotations import (
    SAID_OF,
    SCHEMA_VERSION,
    TARGETS,
    Annotation,
    Annotations,
    annotate,
    annotation_path,
    json_schema,
    measured_at,
    read_annotation,
    stored,
    targets,
    utc,
)
from bench.results.ids import new_uuid7, uuid7_time
from bench.results.record import Record
from bench.results.schema import Info
from bench.results.store import Store
from tests.killing import calls_of, kill_points, killed_at
from tests.records import identity, record

ROOT = Path(__file__).parents[2]
GOLDEN = sorted((ROOT / "tests" / "golden" / "annotations").glob("*/*.json"))
SCHEMA_FILE = ROOT / "bench" / "results" / "annotation.schema.json"
NOON = "2026-01-02T12:00:00Z"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def said(kind: Any = "tag", **changed: Any) -> Annotation:
    """A tag or anything else, of a record unless `changed` names another target."""
    own: dict[str, Any] = {"tag": "night"} if kind == "tag" else {"reason": "a fan was broken"}
    own |= {} if changed.keys() & set(TARGETS) else {SAID_OF[kind][0]: targets(measured())[SAID_OF[kind][0]]}
    return Annotation(**{"id": new_uuid7(), "kind": kind, "at_utc": NOON, **own, **changed})


def measured(started_at_utc: str | None = NOON, **who: Any) -> Record:
    info = Info(started_at_utc=started_at_utc, sweep_id=SWEEP)
    return record(who=identity(**who), info=info)


SWEEP = new_uuid7()


def test_an_annotation_survives_the_way_to_the_store_and_back(store: Store) -> None:
    first, second = said(), said("quarantine", until_utc="2026-02-02T00:00:00+01:00", author="ann")
    annotate(store, first)
    annotate(store, second)
    assert list(stored(store)) == [first, second]
    path = annotation_path(store, first.id)
    assert path == store.root / f"annotations/{uuid7_time(first.id):%Y/%m}/{first.id}.json"
    assert path.read_bytes().endswith(b"\n") and path.read_bytes().count(b"\n") == 1
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []
    before = path.read_bytes()
    with pytest.raises(StoreError, match="written already"):
        annotate(store, msgspec.structs.replace(first, tag="another"))
    assert path.read_bytes() == before, "nothing is ever overwritten"


def test_a_store_without_annotations_says_nothing(store: Store) -> None:
    every = Annotations.of(store)
    assert (every.tags(measured()), every.excluded(measured()), every.quarantined(measured())) == (set(), None, None)
    assert not store.root.exists()


@pytest.mark.parametrize(
    ("kind", "changed", "says"),
    [
        ("tag", {"sweep_id": SWEEP, "record_id": new_uuid7()}, "exactly one of record_id, .*, not about 2"),
        ("tag", {"record_id": None}, "not about 0"),
        ("exclude", {"host_id": "h1"}, "`exclude` is said of record_id, launch_id, sweep_id, not of host_id"),
        ("quarantine", {"record_id": new_uuid7()}, "`quarantine` is said of series_key, config_key, host_id"),
        ("acknowledged", {"launch_id": new_uuid7()}, "`acknowledged` is said of"),
        ("tag", {"tag": None}, "a tag has its name"),
        ("exclude", {"tag": "x"}, "a tag has its name"),
        ("exclude", {"reason": None}, "`exclude` needs a reason"),
        ("tag", {"until_utc": "2027-01-01T00:00:00Z"}, "only a quarantine ends"),
        ("quarantine", {"until_utc": NOON}, "only a quarantine ends, and after it began"),
        ("tag", {"at_utc": "yesterday"}, "'yesterday' is no moment"),
        ("tag", {"at_utc": "2026-01-02"}, "is no moment"),
        ("tag", {"at_utc": "2026-01-02T12:00:00"}, "is no moment"),
        ("tag", {"at_utc": "0001-01-01T00:00:00+23:59"}, "is no moment"),
    ],
)
def test_what_says_nothing_clear_cannot_be_made(kind: str, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        said(kind, **changed)


@pytest.mark.parametrize(
    "changed",
    [{"tag": "two words"}, {"tag": "a,b"}, {"tag": "a=b"}, {"tag": "x" * 65}, {"tag": "new\n"}, {"reason": ""},
     {"author": "x" * 1001}, {"record_id": "../../outside"}, {"record_id": new_uuid7() + "\n"}],
)  # fmt: skip
def test_what_could_not_be_read_back_is_not_written(store: Store, changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no valid annotation"):
        annotate(store, said(**changed))
    with pytest.raises(UsageError, match="not an annotation id"):
        annotate(store, said(id="../../outside"))
    assert not store.root.exists()


def plain(**changed: Any) -> dict[str, Any]:
    return {**msgspec.to_builtins(said()), **changed}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "corrupt annotation: .*after 0 bytes"),
        (b"\xff\xfe", "corrupt annotation"),
        (json.dumps(plain()).encode()[:-9], "corrupt annotation: .*truncated"),
        (b"[" * 100_000, "not a valid annotation"),
        (json.dumps(plain(schema="bench.record")).encode(), "not an annotation: its schema is 'bench.record'"),
        (json.dumps(plain(schema_version="2.0")).encode(), r"schema 2\.0 is newer than 1\.0.*upgrade"),
        (json.dumps(plain(kind="praise")).encode(), r"not a valid annotation: .*\$\.kind"),
        (json.dumps(plain(sweep_id=SWEEP)).encode(), "exactly one of"),
        (json.dumps(plain(at_utc=12)).encode(), r"\$\.at_utc"),
        (json.dumps(plain(at_utc="soon")).encode(), "is no moment"),
        (json.dumps(plain(id=new_uuid7() + "\n")).encode(), r"\$\.id"),
        (json.dumps(plain(id="ffffffff-ffff-7fff-bfff-ffffffffffff")).encode(), "millennium"),
        (json.dumps(plain(id=new_uuid7())).encode(), "copied or renamed"),
    ],
)
def test_a_damaged_one_is_one_clear_error_and_the_others_are_read(store: Store, data: bytes, says: str) -> None:
    good, bad = said(), said()
    annotate(store, good)
    annotate(store, bad)
    path = annotation_path(store, bad.id)
    path.write_bytes(data)
    found: list[StoreError] = []
    assert list(stored(store, found.append)) == [good]
    assert [error.where for error in found] == [str(path)] and "\n" not in str(found[0])
    with pytest.raises(StoreError, match=says):
        Annotations.of(store)


def test_one_in_another_month_is_not_believed(store: Store) -> None:
    annotate(store, one := said())
    path = annotation_path(store, one.id)
    moved = store.root / "annotations" / "1999" / "12" / path.name
    moved.parent.mkdir(parents=True)
    path.rename(moved)
    with pytest.raises(StoreError, match="copied or renamed"):
        read_annotation(moved)


def test_fields_of_a_newer_minor_version_are_passed_over(store: Store) -> None:
    one = said()
    annotate(store, one)
    newer = {**msgspec.to_builtins(one), "schema_version": "1.7", "mood": "good"}
    annotation_path(store, one.id).write_bytes(json.dumps(newer).encode())
    (read,) = stored(store)
    assert (read.id, read.tag, read.schema_version) == (one.id, "night", "1.7")


@pytest.mark.parametrize("name", TARGETS)
def test_a_tag_reaches_the_records_that_it_is_about(name: str) -> None:
    mine = measured()
    other = record(who=identity("pp512", host_id="h2"), info=Info(sweep_id=new_uuid7()))
    every = Annotations([said(**{name: targets(mine)[name]}), said(**{name: targets(mine)[name]}, tag="best")])
    assert every.tags(mine) == {"night", "best"}
    assert every.tags(other) == set()
    assert every.excluded(mine) is None and every.quarantined(mine) is None and every.acknowledged(mine) is None


@pytest.mark.parametrize("name", SAID_OF["exclude"])
def test_what_is_excluded_is_excluded_with_its_reason(name: str) -> None:
    mine = measured()
    every = Annotations([one := said("exclude", **{name: targets(mine)[name]})])
    assert every.excluded(mine) == one
    assert every.excluded(record(who=mine.identity, info=Info(sweep_id=new_uuid7()))) is None


def test_a_host_or_sweep_that_a_record_does_not_tell_is_nobodys() -> None:
    unknown = record(who=identity(host_id=None), info=Info())
    every = Annotations([said(host_id="h1"), said(sweep_id=SWEEP), said("quarantine", host_id="None")])
    assert every.tags(unknown) == set() and every.quarantined(unknown) is None


MOMENTS = st.integers(0, 2000).map(lambda hours: datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(hours=hours))


def iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


@given(st.lists(st.tuples(MOMENTS, MOMENTS | st.none()), max_size=5), MOMENTS)
def test_a_quarantine_holds_from_its_beginning_to_its_end(
    spans: list[tuple[datetime, datetime | None]], when: datetime
) -> None:
    spans = [(begin, end) for begin, end in spans if end is None or end > begin]
    every = Annotations(
        [said("quarantine", host_id="h1", at_utc=iso(b), until_utc=iso(e) if e else None) for b, e in spans]
    )
    expected = any(begin <= when and (end is None or when < end) for begin, end in spans)
    found = every.quarantined(measured(iso(when)))
    assert (found is not None) is expected
    assert every.quarantined(measured("2000-01-01T00:00:00Z"), iso(when)) == found, "the time asked for counts"
    assert every.quarantined(measured(iso(when), host_id="h2")) is None


@given(st.lists(st.tuples(MOMENTS, st.sampled_from(SAID_OF["acknowledged"])), max_size=6), MOMENTS)
def test_the_newest_acknowledgement_before_a_record_begins_its_segment(
    given: list[tuple[datetime, str]], when: datetime
) -> None:
    mine = measured(iso(when))
    all_of_it = [said("acknowledged", at_utc=iso(at), **{name: targets(mine)[name]}) for at, name in given]
    found = Annotations(reversed(all_of_it)).acknowledged(mine)
    before = [at for at, _ in given if at <= when]
    assert (utc(found.at_utc) if found else None) == max(before, default=None)
    assert found is None or found == max((a for a in all_of_it if a.at_utc == found.at_utc), key=lambda a: a.id)


def test_moments_are_compared_as_moments() -> None:
    """As texts 13:30+02:00 would come after 12:00Z."""
    every = Annotations([said("acknowledged", host_id="h1", at_utc="2026-01-02T13:30:00+02:00")])
    assert every.acknowledged(measured("2026-01-02T12:00:00Z")) is not None
    assert every.acknowledged(measured("2026-01-02T11:00:00Z")) is None
    assert utc("2026-01-02T13:30:00.250+02:00") == datetime(2026, 1, 2, 11, 30, 0, 250_000, timezone.utc)


@pytest.mark.parametrize("told", [None, "", "last week", "2026-01-02"])
def test_a_record_that_does_not_tell_its_time_has_that_of_its_launch(told: str | None) -> None:
    mine = measured(told)
    assert measured_at(mine) == uuid7_time(mine.launch_id)


def test_an_annotation_is_there_or_not_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    one, seen = said(), set()

    def act(root: Path, report: Any) -> None:
        annotate(Store(root), one)
        report("written")

    calls = calls_of(lambda: act(tmp_path / "undisturbed", lambda _: None))
    assert {"write", "rename", "fsync"} <= set(calls)
    for at, how in kill_points(calls):
        store = Store(tmp_path / f"{at}-{how}")
        reported, killed = killed_at(partial(act, store.root), at, how)
        assert killed
        read = list(stored(store))
        assert read == [one] if reported else read in ([], [one])
        seen.add(len(read))
        if not read:
            annotate(store, one)
            assert list(stored(store)) == [one]
    assert seen == {0, 1}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_version_ever_written_stays_readable(store: Store, path: Path) -> None:
    wanted = json.loads(path.read_bytes())
    place = annotation_path(store, wanted["id"])
    place.parent.mkdir(parents=True)
    place.write_bytes(path.read_bytes())
    (read,) = stored(store)
    assert read.schema_version == path.parent.name
    assert msgspec.to_builtins(read) == wanted
    jsonschema.validate(wanted, json.loads(SCHEMA_FILE.read_text()))


def test_there_are_golden_annotations_of_the_present_version() -> None:
    assert set(SAID_OF) == {path.stem for path in GOLDEN if path.parent.name == SCHEMA_VERSION}


def test_the_committed_schema_is_current() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == json_schema(), (
        "the schema changed: raise SCHEMA_VERSION, add golden annotations, write json_schema() to the file"
    )
    jsonschema.validate(plain(), json_schema())
    for wrong in (plain(sweep_id=SWEEP), plain(record_id=None), plain(kind="praise"), plain(tag="a,b")):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, json_schema())
