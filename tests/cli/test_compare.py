"""`bench compare` over stores and files: verdicts, one object of JSON, and what is said where a side is empty."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.reports.summary import render_json
from bench.results.annotations import Annotation, annotate
from bench.results.ids import new_uuid7
from bench.results.record import Record, encode
from bench.results.schema import Covariates, Info, Reason
from bench.results.selecting import KEYS
from bench.results.store import Store
from tests.cli.conftest import refused
from tests.records import identity, record, samples
from tests.sweeps.conftest import ROOT, Bench


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def launches(store: Store, *rates: float, **changed: Any) -> list[Record]:
    """A launch in the store for each rate in tok/s, by onnxruntime 1.31.1 unless told."""
    made = [record(samples=samples(step_s=1 / rate), **changed) for rate in rates]
    for one in made:
        with store.launch(one.launch_id) as draft:
            draft.add(one)
    return made


def newer(**more: Any) -> dict[str, Any]:
    return {"covariates": Covariates(runtime={"onnxruntime": "1.32.0"}, **more)}


def say(store: Store, kind: Any, one: Record, **how: Any) -> None:
    """An annotation of the launch of `one`."""
    told = Annotation(id=new_uuid7(), kind=kind, launch_id=one.launch_id, at_utc="2026-01-02T03:04:05Z", **how)
    annotate(store, told)


def test_a_verdict_is_no_failure(bench: Bench, store: Store) -> None:
    launches(store, 100, 101, 99, 100, 100.5)
    launches(store, 90, 91, 89, 90, 90.5, **newer(driver="2"))
    done = bench("compare", "version=1.31", "version=1.32")
    assert (done.code, done.err) == (0, "")
    text = done.out.splitlines()
    assert text[:2] == ["A  version=1.31: 5 launches", "B  version=1.32: 5 launches"]
    assert text[5].startswith("worse    0.900  0.") and text[5].endswith("5+5  100  90.1  smollm2-135m-int8 tg4")
    assert text[6] == "  changed: runtime.onnxruntime 1.31.1 → 1.32.0; driver – → 2" and len(text) == 7
    assert max(map(len, text)) <= 80
    better = bench("compare", "version=1.32", "version=1.31")
    assert better.code == 0 and "\nbetter   1.11" in better.out
    wide = bench("compare", "version=1.31", "version=1.32", "--margin", "0.2")
    assert "\nsame     0.900" in wide.out and "same is within 20 %" in wide.out
    page = bench("compare", "version=1.31", "version=1.32", "--format", "markdown")
    assert "\n| **worse** | smollm2-135m-int8 | tg4 | 0.900 |" in page.out


def test_json_is_one_object_and_nothing_else(bench: Bench, store: Store) -> None:
    launches(store, 100, 101, 99)
    launches(store, 150, 151, 149, who=identity(options={"threads": 4}))
    done = bench("compare", "set.threads=2", "set.threads=4", "--json")
    assert (done.code, done.err, done.out.count("\n")) == (0, "", 1)
    told = json.loads(done.out)
    (row,) = told["rows"]
    assert (row["verdict"], row["n"], row["covariates_changed"]) == ("better", [3, 3], {})
    assert row["low"] < row["ratio"] < row["high"] and row["ratio"] == pytest.approx(1.5, rel=1e-3)
    assert row["differs"] == {"options.threads": ["2", "4"]}
    slower = json.loads(bench("compare", "set.threads=2", "set.threads=4", "--json", "--figure", "tpot_s").out)
    assert slower["rows"][0]["verdict"] == "better" and slower["rows"][0]["ratio"] < 1


def test_sides_are_stores_files_and_lines(bench: Bench, store: Store, tmp_path: Path) -> None:
    own = launches(store, 100, 101, 99)
    theirs = launches(Store(tmp_path / "other"), 50, 51, 49)
    lines, one = tmp_path / "theirs.jsonl", tmp_path / "one.json"
    lines.write_text("".join(f"{render_json(each)}\n" for each in theirs))
    one.write_bytes(encode(own[0]))
    for a, b, n in (
        ("results", "other", [3, 3]),
        ("backend=onnx", str(lines), [3, 3]),
        ("one.json", "other,latest=2", [1, 2]),
    ):
        (row,) = json.loads(bench("compare", a, b, "--json").out)["rows"]
        assert (row["n"], row["ratio"]) == (n, pytest.approx(0.5, rel=0.02))
    same = bench("compare", "results", "backend=onnx")
    assert same.code == 0 and "no verdict: 3 launches stand on both sides" in same.out
    lines.write_text(lines.read_text() + '{"schema": "bench.rec')
    cut = bench("compare", "results", str(lines), "--json")
    assert cut.code == 0 and cut.err.startswith(f"bench: passed over: {lines}:4: corrupt record")
    assert json.loads(cut.out)["rows"][0]["n"] == [3, 3]


def test_what_must_not_be_believed_never_counts(bench: Bench, store: Store) -> None:
    good = launches(store, 100, 101, 99)
    for status in ("invalid", "failed"):
        launches(store, 1, status=status, reason=Reason(what="x"))
    bad = launches(store, 1)
    say(store, "exclude", bad[0], reason="a backup was going on")
    launches(store, 100, 101, 99, **newer())
    done = bench("compare", "version=1.31", "version=1.32", "--json")
    told = json.loads(done.out)
    assert told["rows"][0]["n"] == [3, 3] and told["rows"][0]["ratio"] == pytest.approx(1)
    assert told["a"]["left_out"] == {"excluded": 1, "failed": 1, "invalid": 1} and told["a"]["launches"] == 3
    say(store, "tag", good[1], tag="quiet")
    tagged = json.loads(bench("compare", "tag=quiet", "version=1.32", "--json").out)
    assert tagged["rows"][0]["n"] == [1, 3]
    nothing = bench("compare", "status=failed", "version=1.32")
    refused(nothing, 2, "A: none of the 1 records that 'status=failed' matches counts (1 failed)", "bench table --all")


def test_latest_is_of_those_that_count(bench: Bench, store: Store) -> None:
    launches(store, 100, 10, info=Info(started_at_utc="2026-11-20T00:00:00Z"))
    launches(store, 1, status="invalid", reason=Reason(what="x"))
    launches(store, 10, **newer())
    (row,) = json.loads(bench("compare", "version=1.31,latest=1", "version=1.32", "--json").out)["rows"]
    assert row["a"] == pytest.approx([10])


def test_a_side_without_records_tells_what_there_is(bench: Bench, store: Store) -> None:
    launches(store, 100, who=identity(backend="openvino"))
    launches(store, 100)
    said = bench("compare", "backend=onnx", "backend=openvin,workload=tg4")
    refused(said, 2, "B: 'backend=openvin,workload=tg4' matches no record in ", "(there is backend onnx, openvino)")
    refused(bench("compare", "tag=x", "backend=onnx"), 2, "A: 'tag=x' matches no record", "no record has any tag")
    launches(store, 100, who=identity(backend="evil\x1b[2J\n", scheme="int4"))
    said = bench("compare", "scheme=int4", "backend=x")
    refused(said, 2, "B: ", "evil", "onnx, openvino")
    assert "\x1b" not in said.err
    said = bench("compare", "scheme=int4", "backend=onnx", "--json")
    refused(
        said, 2, "no series of A has a partner in B (A has smollm2-135m-int4 evil", "B has smollm2-135m-int8 onnx tg4)"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("bakend=onnx", "backend=onnx"), "A: unknown selector 'bakend' (nearest: backend)"),
        (("backend=onnx", "onnx"), "B: 'onnx' is neither key=value nor an existing path"),
        (("backend=onnx", "empty"), "empty: holds no results"),
        (("backend=onnx",), "compare: Missing argument 'B'"),
        (("backend=onnx", "latest=1", "--margin", "nan"), "--margin: 'nan' is no margin; write 2% or 0.02"),
        (("backend=onnx", "latest=1", "--margin", "0"), "--margin: '0' is no margin"),
        (("backend=onnx", "latest=1", "--margin", "2%%"), "--margin: '2%%' is no margin"),
        (("backend=onnx", "latest=1", "--figure", "tg_s"), "--figure: unknown figure 'tg_s'"),
        (("backend=onnx", "latest=1", "--results", "nowhere"), "nowhere: there is no store; `bench run` makes one"),
    ],
)
def test_bad_words_are_told(bench: Bench, store: Store, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    launches(store, 100)
    (tmp_path / "empty").mkdir()
    refused(bench("compare", *words), 2, says)


def test_a_damaged_record_is_passed_over(bench: Bench, store: Store) -> None:
    bad, *_ = launches(store, 100, 101, 99)
    launches(store, 100, 101, 99, **newer())
    next(store.launch_path(bad.launch_id).glob("record-*")).write_bytes(b"{")
    done = bench("compare", "version=1.31", "version=1.32", "--json")
    assert done.code == 0 and json.loads(done.out)["rows"][0]["n"] == [2, 3]
    assert done.err.startswith("bench: passed over: ") and done.err.count("\n") == 1, "once, though both sides met it"


def test_without_scipy_it_says_what_to_install(bench: Bench, store: Store, tmp_path: Path) -> None:
    launches(store, 100)
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "scipy.py").write_text("raise ImportError('no scipy here')")
    done = bench("compare", "latest=1", "latest=1", env={"PYTHONPATH": f"{tmp_path / 'without'}:{ROOT}"})
    refused(done, 3, "scipy is missing or broken (no scipy here)", "pip install 'evenbench[analysis]'")
    assert bench("--help", env={"PYTHONPATH": f"{tmp_path / 'without'}:{ROOT}"}).code == 0


PAGE = (ROOT / "docs" / "comparing.md").read_text(encoding="utf-8")


def first_cells(header: str) -> list[str]:
    """First cells of the page's table under `header`, without their backticks."""
    rows = PAGE.split(f"\n{header}\n", 1)[1].split("\n\n")[0].splitlines()[1:]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_the_page_names_every_selector_badge_and_verdict() -> None:
    source = (ROOT / "bench" / "comparing.py").read_text(encoding="utf-8")
    assert sorted(first_cells("| key | a record has it where |")) == sorted(KEYS)
    assert first_cells("| badge | |") == re.findall(r'yield "([a-z ]+)"', source)
    assert first_cells("| verdict | B stands to A so |") == ["same", "better", "worse", "inconclusive", "refused"]


def test_the_page_shows_what_is_printed(bench: Bench, tmp_path: Path) -> None:
    """Over the committed records alone: a checkout has its owner's beside them."""
    tracked = subprocess.run(["git", "-C", str(ROOT), "ls-files", "results"], capture_output=True, text=True)
    if tracked.returncode != 0 or not tracked.stdout:
        pytest.skip("no git checkout: which records are the committed ones is not known")
    for name in tracked.stdout.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shown = re.findall(r"^    \$ bench (.*)\n((?:    .*\n|\n(?=    ))*)", PAGE, re.M)
    assert len(shown) == 4
    for command, printed in shown:
        done = bench(*shlex.split(command))
        text = (done.out or done.err).replace(str(tmp_path / "results"), "results")
        assert text == re.sub(r"^    ", "", printed, flags=re.M), command
