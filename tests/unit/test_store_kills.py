"""The store is killed before, inside and after every call that changes the disk; what it reported must be there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bench.results.ids import new_uuid7
from bench.results.journal import Journal
from bench.results.record import Record, new_record
from bench.results.schema import Covariates, Identity, Info, Sample, Weights, WorkloadRef
from bench.results.store import Store
from tests.killing import calls_of, kill_points, killed_at

CASES = ["a#0", "b#0", "a#1"]
GROUPS = [["a#0", "b#0"], ["a#1"]]


def record(launch_id: str, case_key: str) -> Record:
    workload = WorkloadRef(name="tg2", prompt_tokens=0, new_tokens=2)
    identity = Identity(
        model="m", scheme="int8", weights=Weights(source="synthetic"), backend="null", workload=workload
    )
    return new_record(
        launch_id=launch_id,
        status="ok",
        identity=identity,
        covariates=Covariates(),
        info=Info(case_key=case_key),
        samples=[Sample(step_s=[0.25, 0.5])],
    )


def sweep(store: Store, report: Callable[[str], None]) -> None:
    """What a runner does: plan, then each load group as one launch; every success is reported when it was returned."""
    store.check_writable()
    journal = Journal.create(store, {"flags": ["--model", "m-int8"]}, CASES)
    report(f"sweep {journal.sweep_id}")
    execute(store, journal, GROUPS, report)
    journal.finish()
    report("finished")


def execute(store: Store, journal: Journal, groups: list[list[str]], report: Callable[[str], None]) -> None:
    for group in groups:
        launch_id = new_uuid7()
        journal.started(launch_id, group)
        records = [record(launch_id, case_key) for case_key in group]
        with store.launch(launch_id) as draft:
            with (draft.path / "worker.log").open("wb", buffering=0) as log:
                os.write(log.fileno(), b"what the runtime printed\n")
            for each in records:
                draft.add(each)
        for each in records:
            report(f"record {each.record_id} {each.info.case_key}")
        journal.committed(launch_id, [each.record_id for each in records])


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The calls of an undisturbed sweep, in order."""
    root = tmp_path_factory.mktemp("undisturbed") / "results"
    return calls_of(lambda: sweep(Store(root), lambda line: None))


def test_the_sequence_is_long_enough_to_be_worth_killing(calls: list[str]) -> None:
    assert calls.count("rename") == len(GROUPS)
    assert set(calls) >= {"write", "fsync", "mkdir", "rename", "unlink"}


def test_what_was_reported_survives_every_kill(calls: list[str], tmp_path: Path) -> None:
    outcomes = set()
    for at, how in kill_points(calls):
        root = tmp_path / f"{at}-{how}" / "results"
        root.parent.mkdir()
        reported, killed = killed_at(partial(sweep, Store(root)), at, how)
        assert killed, f"the child was to be killed {how} call {at} ({calls[at]})"
        outcomes.add(check(Store(root), reported, f"{how} call {at} ({calls[at]})"))
    assert outcomes == {0, 2, 3}, "kills must have hit before, between and after the launches"


def check(store: Store, reported: list[str], where: str) -> int:
    """No reported record lost, nothing half-written read, exactly the missing executed; how many had survived."""
    promised = {line.split()[1] for line in reported if line.startswith("record ")}
    held = {r.record_id: r.info.case_key for r in store.records()}  # raises on a half-written record
    assert promised <= held.keys(), where
    assert sorted(held.values()) in ([], ["a#0", "b#0"], ["a#0", "a#1", "b#0"]), f"half a launch is visible, {where}"
    for path in (store.root / "launches").glob("*/*/[0-9a-f]*"):
        assert (path / "worker.log").read_bytes() == b"what the runtime printed\n", where

    journal = Journal.open_latest_unfinished(store)
    if journal is None:
        finished = "finished" in reported or len(held) == len(CASES)
        assert finished or not any(line.startswith("sweep") for line in reported), where
    else:
        assert journal.missing() == [key for key in CASES if key not in held.values()], where
        assert journal.plan == {"flags": ["--model", "m-int8"]}, where
        missing = [[key for key in group if key in journal.missing()] for group in GROUPS]
        execute(store, journal, [group for group in missing if group], lambda line: None)
        journal.finish()
        assert sorted(str(r.info.case_key) for r in store.records()) == sorted(CASES), where
        assert Journal.open(store, journal.sweep_id).finished, where
    sweep(store, lambda line: None)
    assert held.keys() <= {r.record_id for r in store.records()}, where
    return len(held)


def test_everything_is_synced_before_it_is_renamed_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill keeps the page cache, a power cut does not: here only the order of the calls can be checked."""
    trace: list[tuple[str, str]] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(file: int) -> None:
        trace.append(("fsync", str(Path(f"/proc/self/fd/{file}").readlink())))
        real_fsync(file)

    def rename(source: Path, target: Path) -> Path:
        trace.append(("rename", str(source)))
        return real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    store, launch_id = Store(tmp_path / "results"), new_uuid7()
    with store.launch(launch_id) as draft:
        aside = draft.path
        (aside / "events.jsonl").write_text(json.dumps({"event": "done"}) + "\n")
        draft.add(record(launch_id, "a#0"))
        files = [str(path) for path in aside.iterdir()]
    renamed = trace.index(("rename", str(aside)))
    synced = {path for call, path in trace[:renamed] if call == "fsync"}
    assert {*files, str(aside)} <= synced
    assert trace[renamed + 1 :] == [("fsync", str(aside.parent))]
    new_folders_lie_in = [str(folder) for folder in aside.parents][1:5]
    assert new_folders_lie_in[-1] == str(tmp_path)
    assert set(new_folders_lie_in) <= synced
