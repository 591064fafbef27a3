"""A runtime that leaves 3 % of the matrix products to another device: invalid, or allowed and told everywhere."""

from __future__ import annotations

import csv
import io
import json
import signal
from pathlib import Path

import pytest

from bench.artifacts.synthesize import synthesize
from bench.results.store import Store
from tests.sweeps.conftest import MODEL, SCRIPTED, Bench, Ended, scripted
from tests.sweeps.test_interrupts import start, wait_for
from tests.tiny import tiny_arch

PLACED = "tests.scripted:Placed"
TOLD = "asked for chip, but spare executes 3 Attention: 3 % of the matrix products are there"
WARNED = "3 % of the matrix products not on chip, 5 % allowed: spare executes 3 Attention"


@pytest.fixture
def sweep(tmp_path: Path) -> list[str]:
    """Over a file of weights: for what does not really compute there must be no reference."""
    synthesize(tmp_path, model="tiny", arch=tiny_arch(), scheme="int8", processes=1)
    return ["run", "--backend", PLACED, "--weights", str(tmp_path / "model.gguf"), "--workload", "tg4,tg8"]


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_without_the_flag_it_is_invalid_and_the_message_says_what_accepts_it(bench: Bench, sweep: list[str]) -> None:
    ended = bench(*sweep, "--set", "elsewhere=0.03")
    assert (ended.code, ended.statuses) == (5, {"tg4": "invalid", "tg8": "invalid"})
    said = [line for line in ended.err.splitlines() if line.startswith("invalid: ")]
    assert len(said) == 2 and all(line.endswith(f"{TOLD}; `--allow-fallback 0.03` accepts it") for line in said)
    for record in ended.records:
        assert record.facts is not None and record.facts.elsewhere_share == pytest.approx(0.03)
        assert (record.samples, record.warnings, record.info.allow_fallback) == ([], [], None)
    assert "on provider" in ended.out and "97 %" in ended.out, "an invalid one says it too"


def test_what_is_allowed_passes_and_its_share_stands_everywhere(bench: Bench, sweep: list[str]) -> None:
    ended = bench(*sweep, "--set", "elsewhere=0.03", "--allow-fallback", "5%")
    assert (ended.code, ended.statuses) == (0, {"tg4": "unproven", "tg8": "unproven"}), ended.err
    for record in ended.records:
        assert record.facts is not None and record.facts.elsewhere_share == pytest.approx(0.03)
        assert (len(record.samples), record.info.allow_fallback, record.warnings[0]) == (5, 0.05, WARNED)
    assert "on provider" in ended.out and "97 %" in ended.out and WARNED in one_line(ended.out)
    for form in ("terminal", "markdown", "html"):
        told = bench("table", "--format", form).out
        assert "on provider" in told and "97 %" in told and WARNED in one_line(told), form
    lines = list(csv.DictReader(io.StringIO(bench("table", "--format", "csv").out)))
    assert [float(line["on_provider_ratio"]) for line in lines] == pytest.approx([0.97, 0.97])
    shown = bench("show", ended.records[0].record_id).out
    assert "97 % of the matrix products on chip; spare executes 3 Attention; 5 % allowed" in one_line(shown)


def test_more_than_is_allowed_is_invalid_and_nothing_elsewhere_is_no_matter(bench: Bench, sweep: list[str]) -> None:
    more = bench(*sweep, "--set", "elsewhere=0.06", "--allow-fallback", "0.05")
    assert more.code == 5 and "6 % of the matrix products are there, 5 % may be; `--allow-fallback 0.06`" in more.err
    results = more.store.root.parent / "others"
    for words in ((), ("--allow-fallback", "0.05")):
        ended = bench(*sweep, "--set", "elsewhere=0", *words, results=results)
        assert ended.code == 0, ended.err
    keys = {(record.series_key, record.config_key, record.precision_key) for record in ended.records}
    assert len(ended.records) == 4 and len(keys) == 2, "of each workload one series"
    assert not any(WARNED in record.warnings for record in ended.records)
    assert "on provider" not in bench("table", "--all", results=results).out


def test_it_is_compared_with_nothing_that_ran_as_asked(bench: Bench, sweep: list[str]) -> None:
    for share in ("0.03", "0"):
        assert bench(*sweep, "--set", f"elsewhere={share}", "--allow-fallback", "5%").code == 0
    ended = bench("compare", "set.elsewhere=0.03,workload=tg4", "set.elsewhere=0.0", "--json")
    (row,) = json.loads(ended.out)["rows"]
    assert (row["verdict"], row["refused"]) == (None, "other work elsewhere: 3 % on spare and nothing")
    assert row["elsewhere"] == ["3 % on spare", None] and "fallback" in row["badges"]


def interrupted(tmp_path: Path, sweep: list[str]) -> Path:
    """A sweep that was allowed 5 % and misses its second case; its journal."""
    process = start(
        tmp_path, *sweep, "--set", "elsewhere=0.03", "--set", "script=rewind@9:hang", "--allow-fallback", "5%"
    )
    wait_for(tmp_path, process, b"case-done")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    (path,) = (tmp_path / "results" / "sweeps").iterdir()
    return path


def allowed(ended: Ended) -> list[tuple[str, float | None]]:
    return sorted((record.status, record.info.allow_fallback) for record in Store(ended.store.root).records())


def test_a_resumed_sweep_allows_what_its_journal_tells(bench: Bench, sweep: list[str], tmp_path: Path) -> None:
    journal = interrupted(tmp_path, sweep)
    assert json.loads(journal.read_text().splitlines()[0])["plan"]["request"]["allow_fallback"] == 0.05
    resumed = bench("run", "--resume")
    assert resumed.code == 0, resumed.err
    assert allowed(resumed) == [("unproven", 0.05), ("unproven", 0.05)]


def test_a_journal_of_before_is_resumed_and_allows_nothing(bench: Bench, sweep: list[str], tmp_path: Path) -> None:
    journal = interrupted(tmp_path, sweep)
    first, *rest = journal.read_text().splitlines(keepends=True)
    event = json.loads(first)
    del event["plan"]["request"]["allow_fallback"]
    journal.write_text(json.dumps(event) + "\n" + "".join(rest))
    resumed = bench("run", "--resume")
    assert resumed.code == 5 and TOLD in resumed.err
    assert {record.status: record.info.allow_fallback for record in resumed.records} == {
        "unproven": 0.05,
        "invalid": None,
    }


def test_both_sides_and_nights_are_told(bench: Bench, tmp_path: Path) -> None:
    words = ("--model", MODEL, "--workload", "tg4", "--repetitions", "2", "--pairs", "2", "--allow-fallback", "0.05")
    sides = bench("ab", "--a", SCRIPTED, "--b", f"{SCRIPTED} step_ms=1", *words, results=tmp_path / "ab")
    assert sides.code == 0 and [record.info.allow_fallback for record in sides.records] == [0.05] * 4
    plan = tmp_path / "plan.toml"
    plan.write_text(
        f'[[case]]\nbackend = "{SCRIPTED}"\nmodel = "{MODEL}"\nworkload = "tg4"\nlaunches = 1\nallow_fallback = "5%"\n'
    )
    night = bench("nightly", str(plan), results=tmp_path / "nights")
    assert night.code == 0 and [record.info.allow_fallback for record in night.records] == [0.05], night.err
    plain = bench(*scripted(workload="tg4"), results=tmp_path / "plain")
    assert [record.info.allow_fallback for record in plain.records] == [None]
