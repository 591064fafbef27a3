"""One of many processes that write into one store: `python -m tests.store_writer STORE SOURCES COPY INDEX ROUNDS`.

Each round is a sweep of one launch, an annotation about it, the merge of one of SOURCES, which other processes merge
too, and the merge of the store, as the others have it at that moment, into COPY. It prints what is done, a line each.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.results.annotations import Annotation, annotate
from bench.results.ids import new_uuid7
from bench.results.journal import Journal
from bench.results.merging import merged
from bench.results.schema import Info
from bench.results.store import Store
from tests.records import record


def main(root: str, sources: str, copy: str, index: int, rounds: int) -> None:
    store, others = Store(Path(root)), sorted(Path(sources).iterdir())
    for number in range(rounds):
        journal = Journal.create(store, {"writer": index}, ["x", "y"])
        with journal.held():
            launch_id = new_uuid7()
            journal.started(launch_id, ["x", "y"])
            records = [
                record(launch_id=launch_id, info=Info(sweep_id=journal.sweep_id, case_key=key)) for key in ("x", "y")
            ]
            with store.launch(launch_id) as draft:
                (draft.path / "worker.log").write_bytes(b"printed\n" * 20_000)
                for each in records:
                    draft.add(each)
            journal.committed(launch_id, [each.record_id for each in records])
            journal.finish()
        print(*(f"record {each.record_id}" for each in records), sep="\n")
        tag = Annotation(
            id=new_uuid7(), kind="tag", tag=f"w{index}", launch_id=launch_id, at_utc="2026-01-02T00:00:00Z"
        )
        annotate(store, tag)
        print("annotation", tag.id)
        done = merged(store, Store(others[(index + number) % len(others)]))
        assert not done.damaged, done.damaged
        print("merged", done.added.total())
        assert not (copied := merged(Store(Path(copy)), store)).damaged, copied.damaged


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]))
