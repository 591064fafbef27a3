"""How a night is told: Markdown that fits, JSON and JUnit with the same verdicts, no text of a record as markup."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.errors import PrerequisiteError
from bench.nightly.formats import render_json, render_junit
from bench.nightly.judging import VERDICTS
from bench.nightly.night import Findings, Suspect, spend
from bench.nightly.plan import NightlyPlan
from bench.nightly.summary import LONGEST_CELL, MOST_BYTES, headline, render_markdown, render_terminal
from bench.results.record import Record
from bench.results.schema import Reason
from tests.nights import Annotations, Said, Scripted, entry, launch, nights
from tests.records import FACTS, fallback

NOW = "2026-03-01T00:00:00Z"
STEADY = [100.0, 100.4, 99.8, 100.1, 99.9, 100.0]
U8 = msgspec.structs.replace(FACTS, kv_cache="u8")


def failed(model: str, what: str = "died", status: str = "failed") -> Record:
    return launch(50, 1, status=status, reason=Reason(what=what, phase="open"), samples=[], model=model)


def answer(suspect: Suspect) -> list[float]:
    model = suspect.series.tonight.newest.identity.model
    return {"slow": [0.9] * 8, "odd": [0.9] * 3}.get(model, [1.0] * 8)


@pytest.fixture(scope="module")
def night() -> Findings:
    """A night on which everything happened: `slow` and its likes on one machine, three that fell together on h2."""
    known = ["slow", "odd", "noise", "quick", "out", *(f"calm{number}" for number in range(6))]
    stored = [record for model in known for record in nights(STEADY, model=model)]
    stored += [record for model in "abc" for record in nights(STEADY, model=model, host_id="h2")]
    stored += nights(STEADY, model="kv")
    tonight = [
        launch(50, 90.0, model="slow", runtime={"onnxruntime": "1.32.0"}),
        launch(50, 91.0, model="odd"),
        launch(50, 92.0, model="noise"),
        launch(50, 110.0, model="quick"),
        launch(50, 50.0, model="out"),
        launch(50, 50.0, model="kv", facts=U8),
        launch(50, 50.0, model="new"),
        *(launch(50, 100.0, model=f"calm{number}") for number in range(6)),
        *(launch(50, 95.0, model=model, host_id="h2") for model in "abc"),
        failed("dead"),
        failed("dead"),
        failed("wrong", "a|b <i>", "invalid"),
        failed("out", "also dead"),
    ]
    said = Annotations(
        quarantine=lambda record, at_utc: (
            Said(reason="fan", author="ann", until_utc="2026-04-01") if record.identity.model == "out" else None
        )
    )
    plan = NightlyPlan(path=Path("plan.toml"), entries=(entry(1), entry(2)))
    executor = Scripted({1: tonight, 2: PrerequisiteError("disk full", remedy="make room")}, answer)
    return spend(plan, plan.entries, executor, lambda: stored, said, NOW)


def rows(markdown: str) -> dict[str, list[list[str]]]:
    """Cells of the tables by heading."""
    found: dict[str, list[list[str]]] = {}
    for part in markdown.split("\n### ")[1:]:
        title, _, table = part.partition("\n")
        lines = [line for line in table.splitlines() if line.startswith("|")][2:]
        found[title.rpartition(" (")[0]] = [re.split(r" (?<!\\)\| ", line[2:-2]) for line in lines]
    return found


def test_the_night_in_one_line(night: Findings) -> None:
    assert headline(night) == (
        "Nightly 2026-03-01: 1 regression, 1 suspected, 1 unconfirmed, 3 incident, 1 improved, 2 too-little-data, "
        "1 quarantined, 6 quiet, 3 failed or invalid, 1 not executed"
    )


def test_everything_stands_in_the_markdown(night: Findings) -> None:
    told = rows(render_markdown(night))
    assert list(told) == [
        "Whole machines: one alert each",
        "Confirmed regressions",
        "Suspected: pairs are missing",
        "Candidates that pairs did not confirm",
        "Failed and invalid",
        "Not executed",
        "Moved with their machine",
        "Faster",
        "Too little data: no verdict",
        "Quarantined: never alarmed",
        "Quiet",
    ]
    assert told["Whole machines: one alert each"] == [
        ["h2", "3 of 3 slower", "0.950", "a-int8 onnx tg4: not confirmed by pairs"]
    ]
    assert told["Confirmed regressions"] == [
        [
            "slow-int8 onnx tg4",
            "90.0",
            "100",
            "0.900",
            "6",
            "1",
            "8 pairs: 0.900 of the last good night; changed since 2026-01-06: runtime.onnxruntime 1.31.0 → 1.32.0",
        ]
    ]
    assert told["Suspected: pairs are missing"][0][-1].startswith("3 of 8 pairs could be executed; 3 pairs: 0.900")
    assert told["Candidates that pairs did not confirm"][0][-1].endswith("nothing known changed since 2026-01-06")
    assert told["Failed and invalid"] == [
        ["dead-int8 onnx tg4", "failed", "2", "open: died"],
        ["wrong-int8 onnx tg4", "invalid", "1", r"open: a\|b &lt;i&gt;"],
        ["out-int8 onnx tg4", "failed, quarantined", "1", "open: also dead"],
    ]
    assert told["Not executed"] == [["case 2: onnx smollm2-135m-int8 tg4", "disk full; make room"]]
    segment, new = told["Too little data: no verdict"]
    assert segment[-1] == (
        "0 of 5 nights; another precision than before: a new segment; changed since 2026-01-06: kv\\_cache f32 → u8"
    )
    assert (new[0], new[2], new[-1]) == ("new-int8 onnx tg4", "–", "0 of 5 nights")
    assert told["Quarantined: never alarmed"][0][-1] == "quarantined until 2026-04-01 (fan, by ann)"


def test_the_terminal_leaves_out_what_is_quiet(night: Findings) -> None:
    text = render_terminal(night)
    assert "slow-int8" in text
    assert "calm0" not in text
    assert text.count("\n") == 1 + 10 + 15


def test_json_has_the_same_verdicts(night: Findings) -> None:
    told = json.loads(render_json(night, 10))
    assert (told["schema"], told["exit_code"], told["verdict"]) == ("bench.nightly", 10, "regression")
    assert [each["verdict"] for each in told["series"]] == [each.verdict for each in night.judged]
    slow = next(each for each in told["series"] if each["verdict"] == "regression")
    assert slow["covariates_changed"] == {"runtime.onnxruntime": ["1.31.0", "1.32.0"]}
    assert (slow["usual"], slow["ratio"], slow["pairs_ratio"]) == (100.0, pytest.approx(0.9), 0.9)
    assert slow["last_good"]["value"] == pytest.approx(100.0)
    assert {each["status"] for each in told["failed"]} == {"failed", "invalid"}
    assert told["incidents"] == [{"host_id": "h2", "ratio": pytest.approx(0.95), "moved": 3, "of": 3}]
    assert told["errors"][0]["exit_code"] == 3


def test_junit_has_a_case_for_each_series(night: Findings) -> None:
    suite = ElementTree.fromstring(render_junit(night))
    kinds = {case.get("name"): [child.tag for child in case] for case in suite}
    assert len(kinds) == len(suite) == len(night.judged) + 3 + 1, "names are not used twice"
    assert kinds["slow-int8 onnx tg4"] == ["failure"]
    assert kinds["noise-int8 onnx tg4"] == ["system-out"]
    assert kinds["out-int8 onnx tg4"] == kinds["new-int8 onnx tg4"] == ["skipped"]
    assert kinds["calm0-int8 onnx tg4"] == []
    assert suite.attrib.items() >= {"tests": "20", "failures": "1", "errors": "3", "skipped": "4"}.items()
    counted = Counter(child.tag for case in suite for child in case)
    assert (counted["failure"], counted["error"], counted["skipped"]) == (1, 3, 4)


def findings(tonight: list[Record], stored: list[Record] | None = None) -> Findings:
    plan = NightlyPlan(path=Path("plan.toml"), entries=(entry(1),))
    return spend(plan, plan.entries, Scripted(tonight), lambda: stored or [], Annotations(), NOW)


def test_series_of_one_name_are_told_apart() -> None:
    tonight = [launch(50, 9, options={"threads": count, "spin": True}) for count in (1, 2)]
    tonight.append(launch(50, 9, options={"threads": 2, "spin": True}, facts=U8))
    names = [row[0] for row in rows(render_markdown(findings(tonight)))["Too little data: no verdict"]]
    assert len(set(names)) == 3
    assert [re.sub(r" \w+/\w+$", "", name) for name in names] == [
        f"smollm2-135m-int8 onnx tg4 threads={count}" for count in (1, 2, 2)
    ]


@pytest.mark.parametrize("count", [0, 1, 700, 1500])
def test_the_markdown_fits_whatever_there_is(count: int) -> None:
    long = "é<|" * 5000
    found = findings([launch(50, 9, model=f"m{number}{'x' * (number % 300)}") for number in range(count)])
    lost = findings([failed(f"m{number}", long) for number in range(count)])
    for each in (found, lost):
        text = render_markdown(each)
        assert len(text.encode()) < MOST_BYTES
        shown = sum(len(section) for section in rows(text).values())
        left = re.search(r"^(\d+) more rows are left out", text, re.M)
        assert shown + int(left[1] if left else 0) == count
        assert max(map(len, text.splitlines())) < 10 * LONGEST_CELL


def test_what_is_left_out_is_the_least_serious() -> None:
    """Rows of different lengths: a short one does not take the place of one that is more serious."""
    found = findings([failed(f"m{number:04}", "x" * (number * 7919 % 550)) for number in range(900)])
    shown = [row[0] for row in rows(render_markdown(found))["Failed and invalid"]]
    assert 50 < len(shown) < 900
    assert shown == [f"m{number:04}-int8 onnx tg4" for number in range(len(shown))]


def test_many_changes_are_counted() -> None:
    runtime = {f"package{number:02}": "2" for number in range(15)}
    found = findings([launch(50, 50.0, runtime=runtime)], nights(STEADY, runtime=dict.fromkeys(runtime, "1")))
    (row,) = rows(render_markdown(found))["Candidates that pairs did not confirm"]
    assert row[-1].count(" 1 → 2") == 12
    assert row[-1].endswith("package11 1 → 2, 3 more")
    (told,) = json.loads(render_json(found, 0))["series"]
    assert len(told["covariates_changed"]) == 15


def test_work_elsewhere_is_told_whatever_the_verdict() -> None:
    (began,) = rows(render_markdown(findings([launch(50, 9, facts=fallback(0.03))], nights(STEADY)))).values()
    assert began[0][-1] == (
        "0 of 5 nights; elsewhere than asked: 3 % on CPU; another share of work elsewhere than before: a new segment; "
        "changed since 2026-01-06: elsewhere – → 3 % on CPU"
    )
    steady = findings([launch(50, 100, facts=fallback(0.03))], nights(STEADY, facts=fallback(0.03)))
    assert rows(render_markdown(steady))["Quiet"][0][-1] == "elsewhere than asked: 3 % on CPU"
    assert json.loads(render_json(steady, 0))["series"][0]["elsewhere"] == "3 % on CPU"
    assert json.loads(render_json(findings([launch(50, 9)]), 0))["series"][0]["elsewhere"] is None


def test_an_acknowledged_level_is_told_until_it_has_a_history() -> None:
    said = Annotations(accepted=lambda record: Said(reason="new driver", author="ann"))
    plan = NightlyPlan(path=Path("plan.toml"), entries=(entry(1),))
    told = [
        spend(plan, plan.entries, Scripted([launch(50, 100.0)]), lambda count=count: nights(STEADY[:count]), said, NOW)
        for count in (1, 6)
    ]
    few, enough = (next(iter(rows(render_markdown(each)).values()))[0][-1] for each in told)
    assert (few, enough) == ("1 of 5 nights; history began anew (new driver, by ann)", "–")


NASTY = st.text(min_size=1, max_size=40) | st.sampled_from(
    [
        "</testcase>",
        "]]>",
        "a|b",
        "`x`",
        "[a](http://b)",
        "\x00\x1b[31m",
        "\ufffe",
        "<script>",
        "&amp;",
        "a\n\n# b",
        "\\",
    ]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(NASTY, NASTY, NASTY)
def test_what_records_say_is_never_markup(model: str, what: str, version: str) -> None:
    stored = nights(STEADY, model=model)
    tonight = [launch(50, 50.0, model=model, runtime={what: version}), failed(model, what)]
    found = findings(tonight, stored)
    text = render_markdown(found)
    assert [len(section) for section in rows(text).values()] == [1, 1]
    assert not re.search(r"<(?!br)|[\x00-\x09\x0b-\x1f\x7f]|(?<!\\)[`\[]|://", text)
    assert not re.search(r"^(?!#|\||$)", text.rstrip("\n"), re.M), "every line is a heading or a row"
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", render_terminal(found))
    suite = ElementTree.fromstring(render_junit(found))
    assert len(suite) == 2
    (told,) = json.loads(render_json(found, 0))["series"]
    assert told["covariates_changed"] == {
        f"runtime.{what}": ["–", version],
        "runtime.onnxruntime": ["1.31.0", "–"],
    } or what.startswith("onnxruntime")


@pytest.mark.parametrize("render", [render_markdown, render_terminal, render_junit])
def test_a_night_without_anything_is_told(render: Callable[[Findings], str]) -> None:
    assert render(findings([]))
    assert headline(findings([])) == "Nightly 2026-03-01: nothing was measured"
    assert json.loads(render_json(findings([]), 0))["verdict"] is None


def test_every_verdict_has_its_place(night: Findings) -> None:
    assert {each.verdict for each in night.judged} == set(VERDICTS)
