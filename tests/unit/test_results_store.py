"""The store: launches appear whole, are found by id, and every failure is one clear line."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from bench.errors import StoreError, UsageError
from bench.results.ids import new_uuid7
from bench.results.record import Record
from bench.results.store import Store
from tests.records import record


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def commit(store: Store, *workloads: str) -> list[Record]:
    launch_id = new_uuid7()
    records = [record(workload, launch_id=launch_id) for workload in workloads]
    with store.launch(launch_id) as draft:
        for each in records:
            draft.add(each)
    return records


def test_a_launch_appears_whole_or_not_at_all(store: Store) -> None:
    launch_id = new_uuid7()
    with store.launch(launch_id) as draft:
        (draft.path / "worker.log").write_text("hello")
        draft.add(record(launch_id=launch_id))
        assert list(store.records()) == []
        assert store.leftovers() == [draft.path]
    (read,) = store.records()
    assert read.path is not None and read.path.parent == store.launch_path(launch_id) == draft.path
    assert (read.path.parent / "worker.log").read_text() == "hello"
    assert store.leftovers() == []


def test_records_come_back_oldest_launch_first_and_filtered(store: Store) -> None:
    first, second = commit(store, "tg4", "pp512"), commit(store, "tg4")
    assert {r.record_id for r in store.records()} == {r.record_id for r in first + second}
    assert list(store.records())[-1] == second[0]
    assert list(store.records(lambda r: r.identity.workload.name == "pp512")) == [first[1]]
    assert store.launch_records(second[0].launch_id) == second
    assert store.launch_records(new_uuid7()) == []


def test_an_empty_store_is_no_error(store: Store) -> None:
    assert list(store.records()) == []
    assert not store.root.exists()


def test_an_exception_leaves_the_launch_aside_with_its_log(store: Store) -> None:
    launch_id = new_uuid7()
    with pytest.raises(RuntimeError), store.launch(launch_id) as draft:
        draft.add(record(launch_id=launch_id))
        raise RuntimeError
    assert list(store.records()) == []
    assert store.leftovers() == [draft.path]
    draft.discard()
    assert store.leftovers() == []


def test_a_draft_is_guarded_against_misuse(store: Store) -> None:
    (done,) = commit(store, "tg4")
    with pytest.raises(StoreError, match="committed already"):
        store.launch(done.launch_id)
    with pytest.raises(UsageError, match="not a launch id"):
        store.launch("../outside")
    draft = store.launch(new_uuid7())
    with pytest.raises(ValueError, match="belongs to launch"):
        draft.add(done)
    with pytest.raises(ValueError, match="no record"):
        draft.commit()
    mine = record(launch_id=draft.launch_id)
    draft.add(mine)
    with pytest.raises(StoreError, match="exists"):
        draft.add(mine)
    draft.commit()
    draft.commit()
    draft.discard()
    assert store.find(mine.record_id) == mine


def test_a_record_is_found_by_the_beginning_or_the_end_of_its_id(store: Store) -> None:
    (one,), (two,) = commit(store, "tg4"), commit(store, "pp512")
    for each in (one, two):
        assert store.find(each.record_id) == each
        assert store.find(each.record_id.upper()) == each
        assert store.find(each.record_id[-10:]) == each
        assert store.find(each.record_id[:30]) == each
    with pytest.raises(UsageError, match="2 records match") as error:
        store.find(one.record_id[:6])
    assert one.record_id in str(error.value) and two.record_id in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "abc", "hello world", "../../../../etc/passwd", "*", "[0-9]*", "x" * 36, "a" * 36]
)
def test_what_is_no_id_is_refused(store: Store, text: str) -> None:
    commit(store, "tg4")
    with pytest.raises(UsageError, match="not a record id"):
        store.find(text)


def test_an_absent_record_is_a_clear_error(store: Store) -> None:
    with pytest.raises(UsageError, match=r"no record 0193b3f2; `bench table` lists"):
        store.find("0193b3f2")


def test_a_corrupt_record_is_named_and_the_others_are_still_read(store: Store) -> None:
    (bad,), (good,) = commit(store, "tg4"), commit(store, "pp512")
    path = store.find(bad.record_id).path
    assert path is not None
    path.write_bytes(path.read_bytes()[:200])
    found: list[StoreError] = []
    assert list(store.records(unreadable=found.append)) == [good]
    assert [error.where for error in found] == [str(path)]
    with pytest.raises(StoreError, match="corrupt record"):
        store.find(bad.record_id)
    with pytest.raises(StoreError, match="corrupt record"):
        list(store.records())


def test_a_record_under_another_name_is_not_believed(store: Store) -> None:
    (one,) = commit(store, "tg4")
    path = store.find(one.record_id).path
    assert path is not None
    path.rename(path.with_name(f"record-{new_uuid7()}.json"))
    with pytest.raises(StoreError, match="copied or renamed"):
        list(store.records())


def test_two_stores_merge_by_copying(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    here, there = commit(store, "tg4"), commit(other, "pp512")
    for path in (other.root / "launches").rglob("record-*.json"):
        target = store.root / path.relative_to(other.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    assert {r.record_id for r in store.records()} == {r.record_id for r in here + there}


def test_a_store_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write to the results store.*--results DIR") as error:
        Store(tmp_path / "file" / "results").check_writable()
    assert str(tmp_path / "file") in str(error.value)


@pytest.mark.parametrize(
    ("code", "says"),
    [(errno.EACCES, "make it writable"), (errno.EROFS, "make it writable"), (errno.ENOSPC, "free some space")],
)
def test_a_full_or_forbidden_disk_is_one_clear_line(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int, says: str
) -> None:
    store.check_writable()
    real_open = os.open

    def refused(path: Any, flags: int, *more: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(code, os.strerror(code), str(path))
        return real_open(path, flags, *more)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(StoreError, match=says) as error:
        store.check_writable()
    assert str(store.root) in str(error.value) and "\n" not in str(error.value)
    launch_id = new_uuid7()
    with pytest.raises(StoreError, match=says), store.launch(launch_id) as draft:
        draft.add(record(launch_id=launch_id))
    assert list(store.records()) == []


def test_checking_leaves_nothing_behind(store: Store) -> None:
    store.check_writable()
    assert list(store.root.iterdir()) == []
