"""A comparison for people and machines: width, order, escaping, and one object of JSON."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from bench.comparing import Sides, compared
from bench.reports.verdicts import Asked, Heading, render_json, render_markdown, render_terminal
from bench.results.record import Record
from bench.results.schema import Covariates, Info, Weights
from tests.records import FACTS, fallback, identity, record, samples

HEADING = Heading(
    a=Asked(words="version=1.31", launches=3),
    b=Asked(words="version=1.32", launches=1, left_out={"invalid": 2}),
    margin=0.02,
)
HOSTILE = "|`x`<b>[a](http://evil.example)\x1b[31m\u202e\nnext"


def launches(*rates: float, workload: str = "tg4", **changed: Any) -> list[Record]:
    return [record(workload, samples=samples(workload, step_s=1 / rate), **changed) for rate in rates]


def lines(sides: Sides, **how: Any) -> list[str]:
    return render_terminal(sides, HEADING, **how).splitlines()


def test_a_row_begins_with_its_verdict_and_ends_with_what_it_is_about() -> None:
    found = compared(launches(100, 101, 99), launches(50, 51, 49, covariates=Covariates(driver="2")))
    text = lines(found)
    assert text[:5] == [
        "A  version=1.31: 3 launches",
        "B  version=1.32: 1 launch; left out 2 invalid",
        "B against A in tok/s; same is within 2 %; interval of 95 %",
        "",
        "verdict  B / A  interval       n      A     B",
    ]
    assert text[5] == "worse    0.500  0.480 – 0.521  3+3  100  50.0  smollm2-135m-int8 tg4"
    assert text[6:] == [
        "  changed: runtime.onnxruntime 1.31.1 → –; driver – → 2",
        "  badges: few launches",
        "  n = 3 can never be significant: of a rank test p is 0.1 at best",
    ]


def test_what_more_launches_would_tell() -> None:
    def notes(*rates: float, paired: bool = False, **how: Any) -> list[str]:
        a, b = (
            [record(samples=samples(step_s=1 / rate), info=Info(launch_index=index)) for index, rate in enumerate(of)]
            for of in ((100, 103, 97, 101, 99), rates)
        )
        return [line.strip() for line in lines(compared(a, b, in_pairs=paired)) if "would" in line or "never" in line]

    (unpaired,) = notes(100, 105, 95, 102, 98)
    assert re.fullmatch(r"launches a side that would decide: about \d+ more", unpaired)
    (pairs, rank) = notes(99, 105, 95, 102, 97, paired=True)
    assert re.fullmatch(r"pairs that would decide: about \d+ more", pairs)
    assert rank == "n = 5 can never be significant: of a rank test p is 0.062 at best"
    (wild,) = notes(98, 9, 900, 1, 5000)
    assert re.fullmatch(r"launches a side that would decide: (about \d+ more|nobody can tell how many)", wild)
    assert notes(50, 51, 49, 50.5, 49.5) == [], "decided, and so many can be significant"
    (one,) = notes(98)
    assert one == "n = 5 and 1 has no interval and can never be significant: `bench run"


def test_a_refused_row_says_why_instead() -> None:
    digests = [("1" * 64), ("2" * 64)]
    a, b = (launches(100, 100, who=identity(weights=Weights(source="s", digest=each))) for each in digests)
    text = lines(compared(a, b))
    assert text[5].startswith("refused      –  –         2+2  100  100")
    assert text[6] == "  no verdict: other weights: 1111111111 and 2222222222"
    (row,) = json.loads(render_json(compared(a, b), HEADING))["rows"]
    assert row["verdict"] is None and row["ratio"] is None and digests[0] in row["refused"]


def test_work_elsewhere_stands_below_the_row() -> None:
    a, b = launches(100, 100, facts=fallback(0.03)), launches(90, 90, facts=fallback(0.03))
    text = lines(compared(a, b))
    assert "  elsewhere than asked: A 3 % on CPU; B 3 % on CPU" in text and "  badges: fallback, few launches" in text
    (row,) = json.loads(render_json(compared(launches(100), b), HEADING))["rows"]
    assert row["verdict"] is None and row["elsewhere"] == [None, "3 % on CPU"]
    assert "elsewhere than asked: A nothing; B 3 % on CPU" in render_markdown(compared(launches(100), b), HEADING)
    assert not any("elsewhere" in line for line in lines(compared(launches(100), launches(90))))


def test_all_badges_and_long_names_fit_80_columns() -> None:
    name = "a-model-of-a-very-long-name-that-nobody-remembers-and-still-types-7b"
    bf16 = msgspec.structs.replace(FACTS, kv_cache="u8", weights="int8 group 32 with a very long description indeed")
    a = launches(1e5, 2e5, workload="512/5", who=identity("512/5", model=name))
    who = identity("512/5", model=name, backend="openvino", provider=None, host_id="h2", options={"threads": 4})
    b = launches(1234, 1e-3, workload="512/5", status="unproven", warnings=["hot"], facts=bf16, who=who)
    for found in (compared(a, b), compared(a, b, figure="ttft_s")):
        text = lines(found)
        assert max(map(cell_len, text)) <= 80
        assert f"  {name}-int8 512/5" in text or any(line.endswith("512/5") for line in text)
        for said in ("differs: backend onnx → openvino", "badges: unproven, other precision, other machine, warnings"):
            assert any(line.strip().startswith(said) for line in text)


def test_what_stands_on_one_side_alone() -> None:
    a = [each for n in range(14) for each in launches(100, who=identity(backend=f"b{n:02}"))]
    found = compared(a, launches(100, 100, who=identity(backend="b00")))
    text = lines(found)
    assert text[-11] == "only in A: smollm2-135m-int8 b01 tg4 (backend b01)"
    assert text[-1] == "and 3 more on one side alone"
    told = json.loads(render_json(found, HEADING))
    assert len(told["only_in_a"]) == 13 and told["only_in_b"] == []
    assert told["only_in_a"][0] == {
        "model": "smollm2-135m", "scheme": "int8", "backend": "b01", "workload": "tg4", "machine": "h1",
        "for": {"backend": "b01"}, "n": 1,
    }  # fmt: skip


def test_json_is_one_object_with_everything() -> None:
    a, b = launches(100, 101, 99), launches(50, 51, 49, facts=msgspec.structs.replace(FACTS, kv_cache="u8"))
    text = render_json(compared(a, b), HEADING)
    assert "\n" not in text
    told = json.loads(text)
    assert (told["a"]["words"], told["b"]["left_out"], told["margin"]) == ("version=1.31", {"invalid": 2}, 0.02)
    (row,) = told["rows"]
    assert row["verdict"] == "worse" and row["low"] < row["ratio"] < row["high"] < 1
    assert (row["n"], row["level"], row["smallest_p"], row["refused"]) == ([3, 3], 0.95, 0.1, None)
    assert row["covariates_changed"] == {} and row["precision_changed"] == {"kv_cache": ["f32", "u8"]}
    assert row["badges"] == ["other precision", "few launches"] and len(row["a"]) == 3


def test_markdown_is_one_line_a_row_and_inert() -> None:
    who = identity(model=HOSTILE, backend=HOSTILE)
    a = launches(100, 101, who=who, covariates=Covariates(driver=HOSTILE))
    b = launches(50, 51, who=who, covariates=Covariates(driver="1"))
    heading = Heading(a=Asked(words=HOSTILE, launches=1), b=Asked(words="x", launches=1), margin=0.1)
    page = render_markdown(compared(a, [*b, *launches(1, who=identity(model=HOSTILE, scheme="b"))]), heading)
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len(table) == 3 and len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert table[2].startswith("| **worse** |")
    bare = re.sub(r"\\[\[\]`*_]", "", page)
    for active in ("<b>", "](", "`x`", "http://", "\x1b", "\u202e"):
        assert active not in bare, active
    assert page.count("only in B") == 1


def test_the_terminal_gets_no_control_characters_and_colour_moves_nothing() -> None:
    a = launches(100, 101, who=identity(model=HOSTILE), covariates=Covariates(driver=HOSTILE))
    b = launches(50, 51, who=identity(model=HOSTILE), covariates=Covariates(driver="1\x1b[2J"))
    found = compared(a, b)
    plain = render_terminal(found, HEADING)
    assert not any(ord(c) < 32 and c != "\n" for c in plain) and "\u202e" not in plain
    colored = render_terminal(found, HEADING, color=True)
    assert "\x1b[31mworse" in colored
    assert re.sub(r"\x1b\[\d*m", "", colored) == plain


words = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=100)


@given(words, words, st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=3), st.integers(60, 120))
def test_no_number_is_ever_cut(model: str, driver: str, rates: list[float], width: int) -> None:
    a = launches(100, 101, who=identity(model=model))
    b = launches(*rates, who=identity(model=model), covariates=Covariates(driver=driver))
    text = lines(compared(a, b), width=width)
    (row,) = [line for line in text if re.match("better|worse|same|inconclusive", line)]
    assert f"2+{len(rates)}" in row.split() and "100" in row.split()
