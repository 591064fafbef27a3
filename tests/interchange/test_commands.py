"""`bench import` and `bench export` as they are typed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.results.store import Store
from tests.cli.conftest import refused
from tests.interchange.reading import DAMAGED, REAL
from tests.records import identity, record
from tests.sweeps.conftest import Bench, bench, environment

__all__ = ["bench"]

LLAMA = ("import", "llama-bench")


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    for folder in (REAL, DAMAGED):
        for path in folder.iterdir():
            shutil.copy(path, tmp_path)


def folders(store: Store) -> list[Path]:
    return sorted((store.root / "launches").glob("*/*/*")) if store.root.exists() else []


def test_files_are_launches_and_rows_are_records(bench: Bench) -> None:
    done = bench(*LLAMA, "sweep.jsonl", "g0.json", "g2.csv")
    assert (done.code, done.out) == (0, "")
    lines = done.err.splitlines()
    assert [line.split(" (launch ")[0] for line in lines] == [
        "bench: sweep.jsonl: 6 rows imported", "bench: g0.json: 3 rows imported", "bench: g2.csv: 4 rows imported",
    ]  # fmt: skip
    assert len(folders(done.store)) == 3 and len(done.records) == 13
    table = bench("table").out
    assert "imported" in table and "pp32+tg8@d32" in table


def test_nothing_is_imported_twice(bench: Bench) -> None:
    bench(*LLAMA, "both.csv")
    for name in ("both.csv", "both.json"):
        again = bench(*LLAMA, name)
        assert (again.code, again.err) == (0, f"bench: {name}: already imported\n")
    assert len(bench(*LLAMA, "sweep.json").records) == 8 + 6
    partly = bench(*LLAMA, "row-twice.jsonl")
    assert partly.err.startswith("bench: row-twice.jsonl: 2 rows imported; 1 row already imported (launch ")


def test_a_crash_is_told_with_what_was_left(bench: Bench) -> None:
    done = bench(*LLAMA, "crash.json", "progress.jsonl")
    first, second = done.err.splitlines()
    assert "2 rows imported; the file ends early, in line 93: what was incomplete there is left out" in first
    assert "2 rows imported; 8 lines of other text passed over" in second
    assert done.code == 0


@pytest.mark.parametrize("name", ["average-edited.jsonl", "quote-inside.csv", "missing-comma.jsonl"])
def test_a_damaged_file_leaves_nothing(bench: Bench, name: str) -> None:
    """Though its first row was whole."""
    done = bench(*LLAMA, name)
    refused(done, 2, f"{name}:")
    assert folders(done.store) == [] and done.store.leftovers() == []


def test_standard_input(bench: Bench, tmp_path: Path) -> None:
    given = {**environment(tmp_path), "BENCH_RESULTS": str(tmp_path / "results")}
    done = subprocess.run(
        [sys.executable, "-m", "bench", *LLAMA, "-"],
        input=(REAL / "sweep.csv").read_bytes(), env=given, cwd=tmp_path, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stderr.startswith(b"bench: standard input: 6 rows imported")
    sources = [one.source for one in Store(tmp_path / "results").records()]
    assert {source.file for source in sources if source} == {"standard input"}


def test_what_is_typed_wrong(bench: Bench, tmp_path: Path) -> None:
    refused(bench("import", "llamabench", "sweep.json"), 2, "unknown format", "llama-bench")
    refused(bench("export", "llama-bnch"), 2, "unknown format", "llama-bench")
    refused(bench(*LLAMA, "absent.json"), 2, "absent.json: cannot be read: No such file")
    refused(bench(*LLAMA, str(tmp_path)), 2, "cannot be read: Is a directory")
    refused(bench(*LLAMA, "empty.json"), 2, "empty.json: empty (llama-bench was ended before its first test)")
    refused(bench(*LLAMA), 2, "FILE")
    bench(*LLAMA, "sweep.json")
    refused(bench("export", "llama-bench", "--output", "no/such/folder.jsonl"), 2, "cannot be written")


def test_import_export_import_gives_the_same_numbers(bench: Bench, tmp_path: Path) -> None:
    other = tmp_path / "other"
    bench(*LLAMA, "sweep.jsonl")
    out = bench("export", "llama-bench")
    assert out.err == ""
    real = [json.loads(line) for line in (REAL / "sweep.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sorted(map(repr, out.printed)) == sorted(map(repr, real))
    assert bench("export", "llama-bench", "--output", "again.jsonl").out == ""
    assert bench("export", "llama-bench", "--output", "-").out == bench("export", "llama-bench").out != ""
    assert (tmp_path / "again.jsonl").read_text(encoding="utf-8") == out.out
    bench(*LLAMA, "again.jsonl", results=other)
    assert bench("export", "llama-bench", results=other).out == out.out


def test_what_is_exported(bench: Bench, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    for made in (record("pp512"), record("512/5"), record("tg4", status="invalid"),
                 record("pp512+tg4", who=identity("pp512+tg4", backend="other"))):  # fmt: skip
        with store.launch(made.launch_id) as draft:
            draft.add(made)
    bench(*LLAMA, "once.jsonl")
    done = bench("export", "llama-bench")
    assert done.err == "bench: 1 records left out, for llama-bench has no such workload: 512/5\n"
    assert [(row["n_prompt"], row["n_gen"]) for row in done.printed] == [(512, 0), (512, 4), (64, 0), (0, 16)]
    assert [row["n_gen"] for row in bench("export", "llama-bench", "--status", "invalid").printed] == [4]
    assert len(bench("export", "llama-bench", "--backend", "onnx,other").printed) == 2
    nothing = bench("export", "llama-bench", "--model", "none", "--output", "none.jsonl")
    assert "no such records" in nothing.err and not (tmp_path / "none.jsonl").exists()


def test_paths_in_a_claim_are_redacted(bench: Bench, tmp_path: Path) -> None:
    text = (REAL / "once.jsonl").read_text(encoding="utf-8").replace("tiny-int8.gguf", "/home/alice/m.gguf")
    (tmp_path / "named.jsonl").write_text(text, encoding="utf-8")
    one = bench(*LLAMA, "named.jsonl").records[0]
    assert "alice" in bench("show", one.record_id).out
    assert "alice" not in bench("show", one.record_id, "--redacted").out
