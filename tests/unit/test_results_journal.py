"""The journal: what is missing is what the store lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import BusyError, StoreError, UsageError
from bench.results.ids import new_uuid7
from bench.results.journal import Journal
from bench.results.schema import Info
from bench.results.store import Store
from tests.records import record


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def execute(store: Store, journal: Journal, *case_keys: str) -> None:
    launch_id = new_uuid7()
    journal.started(launch_id, case_keys)
    with store.launch(launch_id) as draft:
        for key in case_keys:
            draft.add(record(launch_id=launch_id, info=Info(case_key=key)))


def test_missing_is_what_the_store_lacks(store: Store) -> None:
    journal = Journal.create(store, {"flags": ["a"]}, ["x", "y", "z"])
    assert journal.missing() == ["x", "y", "z"]
    execute(store, journal, "y")  # committed, and killed before the journal said so
    read = Journal.open_latest_unfinished(store)
    assert read is not None
    assert (read.sweep_id, read.plan, read.missing()) == (journal.sweep_id, {"flags": ["a"]}, ["x", "z"])


def test_a_commit_that_the_store_lost_is_missing_again(store: Store) -> None:
    journal = Journal.create(store, {}, ["x"])
    launch_id = new_uuid7()
    journal.started(launch_id, ["x"])
    journal.committed(launch_id, [new_uuid7()])
    assert Journal.open(store, journal.sweep_id).missing() == ["x"]


def test_a_record_of_another_sweep_does_not_count(store: Store) -> None:
    first, second = Journal.create(store, {}, ["x"]), Journal.create(store, {}, ["x"])
    execute(store, first, "x")
    assert (first.missing(), second.missing()) == ([], ["x"])


def test_the_newest_sweep_with_something_to_do_is_resumed(store: Store) -> None:
    older, finished, complete = (Journal.create(store, {}, ["x"]) for _ in range(3))
    finished.finish()
    execute(store, complete, "x")
    latest = Journal.open_latest_unfinished(store)
    assert latest is not None and latest.sweep_id == older.sweep_id
    older.interrupted(new_uuid7())
    assert Journal.open_latest_unfinished(store) is not None
    older.finish()
    assert Journal.open_latest_unfinished(store) is None


def test_one_process_at_a_time_holds_a_sweep(store: Store) -> None:
    journal = Journal.create(store, {}, ["x", "y"])
    other = Journal.open(store, journal.sweep_id)
    with journal.held():
        execute(store, journal, "x")
        with pytest.raises(BusyError, match=r"executed by another process.*wait until it ends") as error, other.held():
            pass
        assert error.value.exit_code == 75
    with other.held():
        assert other.missing() == ["y"], "what the other did meanwhile is known"


def test_nothing_to_resume_in_an_empty_store(store: Store) -> None:
    assert Journal.open_latest_unfinished(store) is None
    with pytest.raises(UsageError, match="no sweep"):
        Journal.open(store, new_uuid7())
    with pytest.raises(UsageError, match="not a sweep id"):
        Journal.open(store, "../../x")


def test_a_line_that_was_cut_off_is_ignored_and_then_replaced(store: Store) -> None:
    journal = Journal.create(store, {}, ["x"])
    with journal.path.open("ab") as file:
        file.write(b'{"event": "fini')
    again = Journal.open(store, journal.sweep_id)
    assert not again.finished
    execute(store, again, "x")
    assert Journal.open(store, journal.sweep_id).missing() == []


def test_a_journal_without_its_plan_was_never_begun(store: Store) -> None:
    journal = Journal.create(store, {}, ["x"])
    journal.path.write_bytes(journal.path.read_bytes()[:-5])
    assert Journal.open_latest_unfinished(store) is None
    with pytest.raises(UsageError, match="before anything was planned"):
        Journal.open(store, journal.sweep_id)


@pytest.mark.parametrize("line", [b"nonsense", b"[]", b'{"event": 1}', b"{}", b'{"event":"started","launch_id":3}'])
def test_a_damaged_journal_names_file_and_line(store: Store, line: bytes) -> None:
    journal = Journal.create(store, {}, ["x"])
    with journal.path.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(StoreError, match="corrupt journal, line 2") as error:
        Journal.open(store, journal.sweep_id)
    assert error.value.where == str(journal.path)


def test_case_keys_must_differ(store: Store) -> None:
    with pytest.raises(ValueError, match="must differ"):
        Journal.create(store, {}, ["x", "x"])
