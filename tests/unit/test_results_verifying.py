"""`verified`: silent over a sound store, one finding that names the file for each thing that is wrong."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.results.annotations import TARGETS, Annotation, annotate, annotation_path, targets
from bench.results.ids import new_uuid7
from bench.results.journal import Journal
from bench.results.record import decode, encode
from bench.results.redact import redact
from bench.results.store import Store
from bench.results.verifying import Finding, verified
from tests.records import identity, record
from tests.stores import ANNOTATIONS, FILES, LAUNCHES, SWEEPS, events, whole, write

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return whole(tmp_path / "results")


def first_record(store: Store) -> Path:
    return next(store.launch_path(LAUNCHES[0]).glob("record-*"))


def found(store: Store, *, damage: bool = True) -> Finding:
    """The one thing that is wrong."""
    (finding,) = verified(store)
    assert finding.damage is damage and "\n" not in str(finding.problem)
    return finding


def test_a_sound_store_and_an_empty_one_have_no_findings(store: Store, tmp_path: Path) -> None:
    assert list(verified(store)) == []
    assert list(verified(Store(tmp_path / "nothing"))) == []


def test_the_reference_records_of_this_project_are_sound() -> None:
    assert [finding for finding in verified(Store(ROOT / "results")) if finding.damage] == []


@given(st.sampled_from(["record", "annotation"]), st.floats(0, 1, exclude_max=True))
@settings(max_examples=40, deadline=None)
def test_a_file_that_was_cut_off_anywhere_is_found(kind: str, share: float) -> None:
    with tempfile.TemporaryDirectory() as root:
        store = write(Path(root), {LAUNCHES[0]: FILES[LAUNCHES[0]]}, annotations=ANNOTATIONS[:1])
        path = first_record(store) if kind == "record" else annotation_path(store, ANNOTATIONS[0].id)
        data = path.read_bytes().rstrip(b"\n")
        path.write_bytes(data[: int(share * len(data))])
        finding = found(store)
        assert finding.problem.where == str(path) and f"corrupt {kind}" in str(finding.problem)


@pytest.mark.parametrize(
    ("before", "after", "keys"),
    [
        (b'"backend":"onnx"', b'"backend":"fast"', "series_key, config_key cannot"),
        (b'"host_id":"h1"', b'"host_id":"h2"', " series_key cannot"),
        (b'"kv_cache":"f32"', b'"kv_cache":"u8"', " precision_key cannot"),
    ],
)
def test_keys_are_computed_again(store: Store, before: bytes, after: bytes, keys: str) -> None:
    path = first_record(store)
    assert before in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(before, after))
    problem = found(store).problem
    assert problem.where == str(path) and keys in f" {problem.what}" and "the file was edited" in str(problem)


def test_keys_that_cannot_be_computed_here_are_believed(store: Store) -> None:
    """Of a redacted record what was hashed is gone; of a newer version it is not known what has to be hashed."""
    for path in store.launch_path(LAUNCHES[0]).glob("record-*"):
        path.write_bytes(encode(redact(decode(path.read_bytes()))))
    for path in store.launch_path(LAUNCHES[1]).glob("record-*"):
        raw = json.loads(path.read_bytes())
        newer = {**raw, "schema_version": "1.99", "identity": {**raw["identity"], "moon": "full"}}
        path.write_bytes(json.dumps(newer).encode())
    assert list(verified(store)) == []


def test_records_of_old_versions_have_the_keys_of_their_time(tmp_path: Path) -> None:
    """What was not told then was not hashed: a field that was added since must not enter."""
    one = record(who=identity(devices=[]))
    raw = {**one.raw(), "schema_version": "1.0"}
    assert raw["facts"]["path"] is None and raw["facts"]["isa"] is None
    for added in ("path", "isa"):
        del raw["facts"][added]
    path = Store(tmp_path).launch_path(one.launch_id) / f"record-{one.record_id}.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(json.dumps(raw).encode())
    assert list(verified(Store(tmp_path))) == []


def another_name(store: Store) -> Path:
    path = first_record(store)
    return path.rename(path.with_name(f"record-{new_uuid7()}.json"))


def another_month(store: Store) -> Path:
    path = store.launch_path(LAUNCHES[0])
    (path.parents[1] / "13").mkdir()
    return path.rename(path.parents[1] / "13" / path.name)


def another_launch(store: Store) -> Path:
    path = store.launch_path(new_uuid7())
    path.mkdir()
    (path / first_record(store).name).write_bytes(first_record(store).read_bytes())
    return path


def no_id(store: Store) -> Path:
    path = store.launch_path(LAUNCHES[0]).with_name("0abc")
    shutil.copytree(store.launch_path(LAUNCHES[0]), path)
    return path


def no_record(store: Store) -> Path:
    path = store.launch_path(new_uuid7())
    path.mkdir()
    return path


def a_file(store: Store) -> Path:
    path = store.launch_path(new_uuid7())
    path.write_bytes(b"")
    return path


def unreadable_journal(store: Store) -> Path:
    path = store.root / "sweeps" / f"{new_uuid7()}.jsonl"
    path.mkdir()
    return path


def edited_journal(store: Store) -> Path:
    path = store.root / "sweeps" / f"{SWEEPS[0]}.jsonl"
    path.write_bytes(events(SWEEPS[0])[0] + b"{}\n")
    return path


def renamed_journal(store: Store) -> Path:
    path = store.root / "sweeps" / f"{SWEEPS[0]}.jsonl"
    return path.rename(path.with_name(f"{new_uuid7()}.jsonl"))


def renamed_annotation(store: Store) -> Path:
    path = annotation_path(store, ANNOTATIONS[0].id)
    return path.rename(path.with_name(f"{new_uuid7()}.json"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (another_month, "in the folder of another month"),
        (another_launch, "copied or renamed"),
        (no_id, "not a launch id"),
        (no_record, "a launch without a record"),
        (a_file, "a launch without a record"),
        (unreadable_journal, "cannot read the journal"),
        (edited_journal, "corrupt journal, line 2"),
        (renamed_journal, f"the journal of sweep {SWEEPS[0]}"),
        (renamed_annotation, "copied or renamed"),
    ],
)
def test_what_lies_in_the_wrong_place_is_found(store: Store, damage: Callable[[Store], Path], says: str) -> None:
    path = damage(store)
    problem = found(store).problem
    assert str(problem.where).startswith(str(path)) and says in str(problem)


def test_a_record_under_another_name_is_also_missed_by_its_journals(store: Store) -> None:
    """Each says one thing: here is a file that is none, and there a record that was committed is not here."""
    path = another_name(store)
    said = [str(finding.problem) for finding in verified(store)]
    assert len(said) == 3 and said[0].startswith(str(path))
    assert all("1 of 2 records are not here that launch" in text for text in said[1:])


def test_a_launch_that_was_committed_and_is_gone_is_told_by_its_journals(store: Store) -> None:
    shutil.rmtree(store.launch_path(LAUNCHES[1]))
    lost, also, about = verified(store)
    assert lost.damage and also.damage and not about.damage
    assert f"2 of 2 records are not here that launch {LAUNCHES[1]} committed" in str(lost.problem)
    assert "bench results merge DIR" in str(lost.problem) and lost.problem.where != also.problem.where
    assert str(annotation_path(store, ANNOTATIONS[1].id)) in str(about.problem)


def test_a_damaged_record_is_not_also_a_lost_one(store: Store) -> None:
    path = first_record(store)
    path.write_bytes(b"{")
    assert found(store).problem.where == str(path)


@pytest.mark.parametrize("name", TARGETS)
def test_an_annotation_about_nothing_that_is_here_is_a_note(store: Store, name: str) -> None:
    ours = decode(first_record(store).read_bytes())
    held = {**targets(ours), "sweep_id": SWEEPS[1]}
    absent = "f" * 64 if name.endswith("key") else "h2" if name == "host_id" else new_uuid7()
    for value in (held[name], absent):
        annotate(store, Annotation(id=new_uuid7(), kind="tag", tag="x", at_utc="2026-01-02T00:00:00Z", **{name: value}))
    problem = found(store, damage=False).problem
    assert f"is about {name.replace('_', ' ')} {absent}" in str(problem)


def test_what_is_unfinished_is_a_note(store: Store) -> None:
    draft = store.launch(new_uuid7())
    (draft.path / "record-x.json").write_text("{")
    assert found(store, damage=False).problem.where == str(draft.path)
    draft.discard()
    journal = Journal.create(store, {}, ["x"])
    os.truncate(journal.path, 10)
    assert "before anything was planned" in str(found(store, damage=False).problem)
    shutil.rmtree(store.root / "sweeps")
    aside = annotation_path(store, ANNOTATIONS[0].id).with_name(".x.json.partial")
    aside.write_text("{")
    assert found(store, damage=False).problem.where == str(aside)


def test_a_sweep_in_progress_is_sound(store: Store) -> None:
    journal = Journal.create(store, {}, ["x"])
    journal.started(new_uuid7(), ["x"])
    with journal.path.open("ab") as file:
        file.write(b'{"event":"comm')
    assert list(verified(store)) == []
