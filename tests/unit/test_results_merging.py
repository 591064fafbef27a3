"""The union of stores: in any order, once more, and killed at any call, it is the same; damage is told and left out."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.errors import BusyError, StoreError
from bench.results.annotations import annotate, annotation_path
from bench.results.ids import new_uuid7
from bench.results.journal import Journal, holding, read_lines
from bench.results.merging import LOCK, merged
from bench.results.record import decode, encode
from bench.results.redact import redact
from bench.results.store import Store
from bench.results.verifying import verified
from tests.killing import calls_of, kill_points, killed_at
from tests.stores import ANNOTATIONS, FILES, LAUNCHES, SWEEPS, content, events, line, whole, write

Parts = dict[str, Any]


@st.composite
def parts(draw: st.DrawFn) -> Parts:
    """What one store has of everything: launches with some of their files, journals with some lines, annotations."""
    launches = {}
    for launch_id in draw(st.sets(st.sampled_from(LAUNCHES))):
        names = sorted(FILES[launch_id])
        records, others = names[1:3], [names[0], names[3]]
        some = draw(st.sets(st.sampled_from(records), min_size=1)) | draw(st.sets(st.sampled_from(others)))
        launches[launch_id] = sorted(some)
    return {
        "launches": launches,
        "journals": {sweep_id: draw(journal(sweep_id)) for sweep_id in draw(st.sets(st.sampled_from(SWEEPS)))},
        "annotations": draw(st.lists(st.sampled_from(ANNOTATIONS), unique=True)),
    }


@st.composite
def journal(draw: st.DrawFn, sweep_id: str) -> bytes:
    """As a copy of an earlier time, or as one that went on by itself, even with a clock that was set back."""
    planned, *rest = events(sweep_id)
    if draw(st.booleans()):
        rest = rest[: draw(st.integers(0, len(rest)))]
    else:
        rest = draw(st.lists(st.sampled_from(rest), max_size=6))
    cut = draw(st.sampled_from([b"", b'{"event":"sta']))
    return draw(st.sampled_from([planned + b"".join(rest) + cut] * 5 + [b'{"event":"plan']))


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of small stores, and no power cut is played: only calls are counted."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def folder() -> Iterator[Callable[[], Path]]:
    """A fresh folder for each call, so that an example of hypothesis finds nothing of the one before."""
    with tempfile.TemporaryDirectory() as root:
        yield lambda: Path(tempfile.mkdtemp(dir=root))


MANY = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def union(folder: Callable[[], Path], *stores: Parts) -> dict[str, bytes]:
    """What is in a store into which all were merged, the first of them being that store."""
    into = write(folder(), **stores[0])
    for other in stores[1:]:
        assert merged(into, write(folder(), **other)).damaged == []
    return content(into)


@given(mine=parts(), theirs=parts())
@MANY
def test_it_does_not_matter_which_store_is_merged_into_which(
    folder: Callable[[], Path], unsynced: None, mine: Parts, theirs: Parts
) -> None:
    one, other = union(folder, mine, theirs), union(folder, theirs, mine)
    assert one == other
    for part in (content(write(folder(), **mine)), content(write(folder(), **theirs))):
        assert part.keys() <= one.keys()
        for name, data in part.items():
            assert set(data.splitlines()) <= set(one[name].splitlines())
            assert name.startswith("sweeps/") or data == one[name]
    assert union(folder, {}, mine, theirs) == one, "an empty store gets all of it"


@given(mine=parts(), theirs=parts())
@MANY
def test_merging_again_changes_nothing_and_a_source_is_never_touched(
    folder: Callable[[], Path], unsynced: None, mine: Parts, theirs: Parts
) -> None:
    into, source = write(folder(), **mine), write(folder(), **theirs)
    before = content(source)
    merged(into, source)
    once = content(into)
    again = merged(into, source)
    assert not again.added and not again.damaged
    assert content(into) == once and content(source) == before
    assert not merged(into, into).added
    back = merged(source, into)
    assert content(source) == once and not back.damaged
    assert not list(into.root.rglob(".*.partial"))


@given(st.permutations(range(3)), parts(), parts(), parts())
@MANY
def test_many_stores_are_merged_in_any_order(
    folder: Callable[[], Path], unsynced: None, order: list[int], a: Parts, b: Parts, c: Parts
) -> None:
    stores = (a, b, c)
    in_turn = union(folder, *(stores[at] for at in order))
    assert in_turn == union(folder, a, b, c)
    pair = write(folder(), **b)
    merged(pair, write(folder(), **c))
    into = write(folder(), **a)
    merged(into, pair)
    assert content(into) == in_turn, "first two of them, then the third"


def test_everything_is_counted(tmp_path: Path) -> None:
    into, source = Store(tmp_path / "into"), whole(tmp_path / "source")
    done = merged(into, source)
    assert done.added == {"launch": 4, "sweep": 2, "annotation": 3} and not done.present
    assert content(into) == content(source)
    assert list(verified(into)) == [] == list(verified(source))
    assert sorted(path.name for path in into.root.iterdir()) == [LOCK, "annotations", "launches", "sweeps"]
    annotate(source, ANNOTATIONS[0].__class__(**{**FRESH, "id": new_uuid7()}))
    done = merged(into, source)
    assert (done.added, done.present) == ({"annotation": 1}, {"launch": 4, "sweep": 2, "annotation": 3})


FRESH: dict[str, Any] = {"kind": "exclude", "reason": "x", "launch_id": LAUNCHES[0], "at_utc": "2026-01-02T00:00:00Z"}
TWO_SIDES: tuple[Parts, Parts] = (
    {
        "launches": {LAUNCHES[0]: list(FILES[LAUNCHES[0]]), LAUNCHES[1]: sorted(FILES[LAUNCHES[1]])[1:2]},
        "journals": {
            SWEEPS[0]: b"".join(events(SWEEPS[0])[:3]) + b'{"event":"com',
            SWEEPS[1]: b"".join([*events(SWEEPS[1])[:2], events(SWEEPS[1])[-1]]),
        },
        "annotations": ANNOTATIONS[:1],
    },
    {
        "launches": {launch_id: list(FILES[launch_id]) for launch_id in LAUNCHES[1:3]},
        "journals": {SWEEPS[0]: b"".join(events(SWEEPS[0])[:6]), SWEEPS[1]: b"".join(events(SWEEPS[1])[:4])},
        "annotations": ANNOTATIONS[1:],
    },
)
"""Launches new, present and with files missing; a journal to be continued, one that must be written anew."""


def test_a_merge_killed_at_any_call_is_mended_by_the_next_in_either_direction(tmp_path: Path, unsynced: None) -> None:
    mine, theirs = TWO_SIDES
    wanted = union(lambda: Path(tempfile.mkdtemp(dir=tmp_path)), mine, theirs)
    source = write(tmp_path / "source", **theirs)

    def act(root: Path, report: object) -> None:
        merged(Store(root), source)

    undisturbed = write(tmp_path / "undisturbed", **mine)
    calls = calls_of(lambda: act(undisturbed.root, None))
    assert content(undisturbed) == wanted
    assert calls.count("rename") >= 5 and {"write", "fsync", "mkdir"} <= set(calls)
    states = set()
    for at, how in kill_points(calls):
        where = f"{how} call {at} ({calls[at]})"
        into = write(tmp_path / f"{at}-{how}", **mine)
        before = content(into)
        assert killed_at(partial(act, into.root), at, how)[1], where
        left = content(into)
        assert [str(found.problem) for found in verified(into) if found.damage] == [], where
        assert before.keys() <= left.keys() <= wanted.keys(), where
        for name, data in left.items():
            assert data == wanted[name] or name.startswith("sweeps/"), where
            assert set(data.splitlines()) <= set(wanted[name].splitlines()), where
        states.add(len(left))
        other = write(tmp_path / f"{at}-{how}-other", **theirs)
        assert merged(other, into).damaged == [] and content(other) == wanted, where
        assert merged(into, source).damaged == [] and content(into) == wanted, where
        assert not list(into.root.rglob(".*.partial")), f"what the killed one left is gone, {where}"
        shutil.rmtree(into.root)
        shutil.rmtree(other.root)
    assert len(states) >= 5, "kills must have hit before, between and after the parts"


def corrupt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def other_number(path: Path) -> None:
    assert b"4000.0" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"4000.0", b"4100.0"))


def other_identity(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"backend":"onnx"', b'"backend":"fast"'))


def a_link(path: Path) -> None:
    target = path.with_name("secret")
    path.rename(path.parents[4] / "secret")
    path.symlink_to(path.parents[4] / "secret")
    assert not target.exists()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def the_wrong_month(path: Path) -> None:
    moved = path.parents[2] / "13" / path.parent.name
    moved.parent.mkdir()
    path.parent.rename(moved)


def without_a_record(path: Path) -> None:
    for file in path.parent.glob("record-*"):
        file.unlink()


def under_another_id(path: Path) -> None:
    path.parent.rename(path.parent.with_name(new_uuid7()))


def with_a_name_that_is_no_id(path: Path) -> None:
    path.parent.rename(path.parent.with_name("0abc"))


@pytest.mark.parametrize(
    ("damage", "file", "says"),
    [
        (corrupt, "record", "corrupt record"),
        (other_identity, "record", "series_key, config_key cannot be computed"),
        (a_link, "worker.log", "is no file"),
        (a_link, "record", "is no file"),
        (a_folder, "worker.log", "is no file"),
        (a_pipe, "worker.log", "is no file"),
        (the_wrong_month, "record", "in the folder of another month"),
        (without_a_record, "record", "a launch without a record"),
        (under_another_id, "record", "in the folder of another month|copied or renamed"),
        (with_a_name_that_is_no_id, "record", "not a launch id"),
    ],
)
def test_a_damaged_launch_is_told_and_left_out(
    tmp_path: Path, damage: Callable[[Path], None], file: str, says: str
) -> None:
    source, into = whole(tmp_path / "source"), Store(tmp_path / "into")
    damage(next(source.launch_path(LAUNCHES[1]).glob(f"{file}*")))
    done = merged(into, source)
    (problem,) = done.damaged
    with pytest.raises(StoreError, match=says):
        raise problem
    assert str(source.root) in str(problem) and "\n" not in str(problem)
    assert done.added == {"launch": 3, "sweep": 2, "annotation": 3}
    assert {path.name for path in into.launches()} == {*LAUNCHES} - {LAUNCHES[1]}


@pytest.mark.parametrize("file", ["record", "worker.log"])
@pytest.mark.parametrize("mine_is_wrong", [False, True])
def test_a_launch_of_the_same_id_with_other_bytes_is_told_and_never_overwritten(
    tmp_path: Path, file: str, mine_is_wrong: bool
) -> None:
    into, source = whole(tmp_path / "into"), whole(tmp_path / "source")
    path = next((into if mine_is_wrong else source).launch_path(LAUNCHES[2]).glob(f"{file}*"))
    if file == "record":
        other_number(path)
    else:
        path.write_bytes(b"another\n")
    next(into.launch_path(LAUNCHES[2]).glob("events*")).unlink()
    before = content(into)
    done = merged(into, source)
    (problem,) = done.damaged
    assert "differs from" in str(problem) and str(into.root) in str(problem) and str(source.root) in str(problem)
    assert content(into) == before, "nothing is added to a launch that is not the same"
    assert (done.added, done.present) == ({}, {"launch": 3, "sweep": 2, "annotation": 3})


def test_a_launch_of_which_mine_is_damaged_is_told(tmp_path: Path) -> None:
    into, source = whole(tmp_path / "into"), whole(tmp_path / "source")
    corrupt(path := next(into.launch_path(LAUNCHES[2]).glob("record-*")))
    (problem,) = merged(into, source).damaged
    assert str(path) in str(problem)


@pytest.mark.parametrize("redacted_is_mine", [False, True])
def test_a_published_record_stands_for_its_original(tmp_path: Path, redacted_is_mine: bool) -> None:
    into, source = whole(tmp_path / "into"), whole(tmp_path / "source")
    for path in (into if redacted_is_mine else source).launch_path(LAUNCHES[0]).glob("record-*"):
        path.write_bytes(encode(redact(decode(path.read_bytes()))))
    before = content(into)
    assert merged(into, source).damaged == []
    assert content(into) == before, "whichever was here stays"
    for path in (into if redacted_is_mine else source).launch_path(LAUNCHES[0]).glob("record-*"):
        other_number(path)
    assert len(merged(into, source).damaged) == 1, "and only as long as it says the same"


def test_two_records_that_differ_in_what_redaction_removes_are_two(tmp_path: Path) -> None:
    into, source = whole(tmp_path / "into"), whole(tmp_path / "source")
    for path in source.launch_path(LAUNCHES[0]).glob("record-*"):
        path.write_bytes(path.read_bytes().replace(b"lab-seven", b"lab-eight"))
    assert "differs" in str(merged(into, source).damaged[0])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"nonsense\n", "corrupt journal, line 1"),
        (events(SWEEPS[0])[0] + b"[" * 100_000 + b"\n", "corrupt journal, line 2"),
        (events(SWEEPS[0])[0] + b'{"event":"x","y":"\xff"}\n', "corrupt journal, line 2"),
        (events(SWEEPS[0])[0] + b'{"event":"x","y":1e999}\n', "corrupt journal, line 2"),
        (events(SWEEPS[0])[0] + line("started", launch_id="../../outside"), "corrupt journal, line 2"),
        (events(SWEEPS[0])[0] + line("committed", launch_id=LAUNCHES[0], record_ids=None), "corrupt journal, line 2"),
        (line("planned", sweep_id=SWEEPS[0], case_keys=["z"], plan={}), "another sweep has the same id"),
    ],
)
def test_a_damaged_journal_is_told_and_left_out(tmp_path: Path, data: bytes, says: str) -> None:
    into, source = whole(tmp_path / "into"), whole(tmp_path / "source")
    (source.root / "sweeps" / f"{SWEEPS[0]}.jsonl").write_bytes(data)
    before = content(into)
    done = merged(into, source)
    (problem,) = done.damaged
    assert says in str(problem) and content(into) == before
    assert done.present == {"launch": 4, "sweep": 1, "annotation": 3}


@pytest.mark.parametrize(
    ("data", "says"), [(b"", "corrupt annotation"), (b'{"schema":"x","schema_version":"1.0"}', "not an annotation")]
)
def test_a_damaged_annotation_is_told_and_left_out(tmp_path: Path, data: bytes, says: str) -> None:
    into, source = Store(tmp_path / "into"), whole(tmp_path / "source")
    annotation_path(source, ANNOTATIONS[0].id).write_bytes(data)
    done = merged(into, source)
    assert says in str(done.damaged[0]) and done.added["annotation"] == 2


def test_an_annotation_of_the_same_id_with_other_bytes_is_told(tmp_path: Path) -> None:
    into, source = whole(tmp_path / "into"), whole(tmp_path / "source")
    path = annotation_path(source, ANNOTATIONS[0].id)
    path.write_bytes(path.read_bytes().replace(b"best", b"good"))
    before = content(into)
    assert "differs from" in str(merged(into, source).damaged[0]) and content(into) == before


def test_a_journal_is_continued_in_its_place_and_written_anew_only_where_it_must(tmp_path: Path) -> None:
    mine, theirs = TWO_SIDES
    into, source = write(tmp_path / "into", **mine), write(tmp_path / "source", **theirs)
    paths = [into.root / "sweeps" / f"{sweep_id}.jsonl" for sweep_id in SWEEPS]
    before = [path.stat().st_ino for path in paths]
    merged(into, source)
    after = [path.stat().st_ino for path in paths]
    assert after[0] == before[0] and after[1] != before[1]
    assert Journal.open(into, SWEEPS[1]).finished, "who finished it finished it"


def test_a_sweep_that_is_being_executed_keeps_its_journal(tmp_path: Path) -> None:
    mine, theirs = TWO_SIDES
    into, source = write(tmp_path / "into", **mine), write(tmp_path / "source", **theirs)
    path = into.root / "sweeps" / f"{SWEEPS[0]}.jsonl"
    before = path.read_bytes()
    with Journal.open(into, SWEEPS[0]).held():
        with pytest.raises(BusyError, match="being executed by another process"):
            merged(into, source)
        assert path.read_bytes() == before
        assert merged(into, write(tmp_path / "same", journals={SWEEPS[0]: before})).present == {"sweep": 1}
    assert merged(into, source).added == {"sweep": 2, "annotation": 2}, "launches had been added"


def test_a_lock_on_a_journal_that_was_replaced_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = whole(tmp_path / "results")
    path = store.root / "sweeps" / f"{SWEEPS[0]}.jsonl"
    real_open = os.open

    def replaced_right_after(name: Any, *more: Any) -> int:
        file = real_open(name, *more)
        if Path(name) == path:
            shutil.copy(path, path.with_name("copy"))
            path.with_name("copy").rename(path)
        return file

    monkeypatch.setattr(os, "open", replaced_right_after)
    with pytest.raises(BusyError), holding(store, path):
        raise AssertionError("it holds a file that has no name any more")
    monkeypatch.undo()
    with holding(store, path):
        assert len(read_lines(path)) == len(events(SWEEPS[0]))


def test_what_is_in_progress_in_the_source_is_not_taken(tmp_path: Path) -> None:
    source, into = Store(tmp_path / "source"), Store(tmp_path / "into")
    launch_id = new_uuid7()
    draft = source.launch(launch_id)
    (draft.path / "worker.log").write_text("…")
    assert merged(into, source).added == {}
    assert not (into.root / "launches").exists()


def test_a_folder_that_cannot_be_listed_is_an_error_and_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, into = whole(tmp_path / "source"), Store(tmp_path / "into")
    real_scandir = os.scandir

    def scandir(path: Any = ".") -> Any:
        if Path(path) == source.launch_path(LAUNCHES[0]).parent:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(StoreError, match=r"cannot be listed: Permission denied.*make it readable"):
        merged(into, source)
    assert not into.root.exists()


def test_a_disk_that_fills_up_is_one_clear_line_and_the_next_merge_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, into = whole(tmp_path / "source"), Store(tmp_path / "into")
    real_write, left = os.write, [5]

    def write_until_full(file: int, data: bytes) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(file, data)

    monkeypatch.setattr(os, "write", write_until_full)
    with pytest.raises(StoreError, match=r"cannot write to the results store: No space left.*free some space"):
        merged(into, source)
    monkeypatch.undo()
    assert 0 < len(into.launches()) < len(LAUNCHES)
    assert merged(into, source).damaged == [] and content(into) == content(source)
