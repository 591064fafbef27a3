"""Eight processes that write launches, annotations and merges into one store at once corrupt nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.results.annotations import stored
from bench.results.journal import Journal
from bench.results.merging import merged
from bench.results.store import Store
from bench.results.verifying import verified
from tests.stores import ANNOTATIONS, FILES, LAUNCHES, SWEEPS, content, events, write

ROOT = Path(__file__).parents[2]
WRITERS, ROUNDS = 8, 4


def sources(folder: Path) -> None:
    """Four stores that overlap: parts of the same launches, other lines of the same journal, the same annotations."""
    planned, *rest = events(SWEEPS[0])
    for number in range(4):
        launches = {LAUNCHES[number]: FILES[LAUNCHES[number]], LAUNCHES[0]: sorted(FILES[LAUNCHES[0]])[1 : 2 + number]}
        journal = planned + b"".join(rest[2 * number : 2 * number + (2 if number < 3 else 4)])
        write(folder / str(number), launches, {SWEEPS[0]: journal}, ANNOTATIONS[: 1 + number])


def test_eight_writers_at_once(tmp_path: Path) -> None:
    sources(tmp_path / "sources")
    root = tmp_path / "results"
    folders = [str(root), str(tmp_path / "sources"), str(tmp_path / "copy")]
    words = [sys.executable, "-m", "tests.store_writer", *folders]
    writers = [
        subprocess.Popen([*words, str(index), str(ROUNDS)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for index in range(WRITERS)
    ]
    looked = 0
    try:
        while any(writer.poll() is None for writer in writers):
            list(Store(root).records())  # raises on a half-written record
            list(stored(Store(root)))
            assert not [finding for finding in verified(Store(root)) if finding.damage]
            looked += 1
        said = [writer.communicate()[0].splitlines() for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    assert [writer.returncode for writer in writers] == [0] * WRITERS
    assert looked >= 2

    store = Store(root)
    assert list(verified(store)) == []
    told = {line.split()[1] for lines in said for line in lines if line.startswith(("record", "annotation"))}
    assert len(told) == WRITERS * ROUNDS * 3
    held = {record.record_id for record in store.records()} | {annotation.id for annotation in stored(store)}
    alone = Store(tmp_path / "alone")
    for source in sorted((tmp_path / "sources").iterdir()):
        assert not merged(alone, Store(source)).damaged
    there = {record.record_id for record in alone.records()} | {annotation.id for annotation in stored(alone)}
    assert held == told | there
    union, both = content(alone), content(store)
    assert union.keys() <= both.keys() and {name: both[name] for name in union} == union
    assert union[f"sweeps/{SWEEPS[0]}.jsonl"] == b"".join(events(SWEEPS[0])), "no line of four journals is lost"
    assert Journal.open_latest_unfinished(store) is None
    added = sum(int(line.split()[1]) for lines in said for line in lines if line.startswith("merged"))
    assert added >= len(LAUNCHES) + 1 + len(ANNOTATIONS)

    copy = Store(tmp_path / "copy")
    assert content(copy).keys() <= both.keys()
    assert not merged(copy, store).damaged
    assert content(copy) == both, "and it can be copied while it is written"
