"""What may be ranked together, and tables to publish: bars, intervals, badges, ages, HTML."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from datetime import date
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from bench.reports.column import NOT_MEASURED
from bench.reports.grouping import must_be_equal
from bench.reports.html import render_html
from bench.reports.published_columns import bar
from bench.reports.render import page_columns, render_csv, render_markdown, render_terminal
from bench.reports.summary import summarize
from bench.reports.table import Table, build_table
from bench.results.record import Record
from bench.results.schema import DeviceRef, Info, Phase, Reason, Weights
from tests.records import FACTS, fallback, identity, record, samples
from tests.unit.test_reports_table import HOSTILE

HALF = Phase(activations="f16", compute="f32", product_results="f16")
HELD = "int8 codes held as f16"
NO_REFERENCE = Reason(what="no reference")
TODAY = date(2026, 1, 12)


def facts(**changed: Any) -> Any:
    return msgspec.structs.replace(FACTS, **changed)


def chunked(chunk: int) -> Any:
    return msgspec.structs.replace(identity().workload, chunk=chunk)


def page(table: Table) -> list[dict[str, str]]:
    """What a page shows, by header, row by row."""
    return [{column.header: column.read(row) for column in page_columns(table)} for row in table.rows]


def relative(table: Table) -> dict[str, float | None]:
    return {row.first.identity.backend: row.relative_ratio for row in table.rows}


@pytest.mark.parametrize(
    ("other", "heading"),
    [
        (record(who=identity(scheme="int4")), "smollm2-135m-int4 tg4, a8-g32, KV f32"),
        (record(who=identity(model="qwen3-0.6b")), "qwen3-0.6b-int8 tg4, a8-g32, KV f32"),
        (record("pp512"), "smollm2-135m-int8 pp512, a8-g32, KV f32"),
        (record(who=identity(fidelity="exact")), "smollm2-135m-int8 tg4, exact, a8-g32, KV f32"),
        (record(facts=facts(kv_cache="f16")), "smollm2-135m-int8 tg4, a8-g32, KV f16"),
        (record(facts=facts(kv_cache="u8")), "smollm2-135m-int8 tg4, a8-g32+kv8, KV u8"),
        (
            record(facts=facts(decode=Phase(activations="f32", compute="bf16"))),
            "smollm2-135m-int8 tg4, a8-g32/bf16, KV f32",
        ),
        (
            record(facts=facts(decode=Phase(activations="a8-g32", compute="f32", attention_sums="f16"))),
            "smollm2-135m-int8 tg4, a8-g32, KV f32, decode a8-g32/f32/attention sums f16",
        ),
        (
            record(facts=facts(decode=Phase(activations="a8-g32", compute="f32", product_results="f16"))),
            "smollm2-135m-int8 tg4, a8-g32/a8-g32 with f16 results, KV f32",
        ),
        (
            record(facts=facts(**dict.fromkeys(("prefill", "decode"), HALF), weights=HELD, kv_cache="f16")),
            "smollm2-135m-int8 tg4, a16-f16+out16, KV f16",
        ),
        (record(facts=fallback(0.03)), "smollm2-135m-int8 tg4, a8-g32, KV f32, 3 % on CPU"),
        (record(facts=fallback(0.0)), "smollm2-135m-int8 tg4, a8-g32, KV f32, other operations on CPU"),
        (record(facts=None), "smollm2-135m-int8 tg4, precision not known"),
        (record(who=identity(workload=chunked(64))), "smollm2-135m-int8 tg4, a8-g32, KV f32, chunk 64"),
        (
            record(who=identity(weights=Weights(source="synthetic", digest="d2"))),
            "smollm2-135m-int8 tg4, a8-g32, KV f32, weights d2",
        ),
        (record(who=identity(method=2)), "smollm2-135m-int8 tg4, a8-g32, KV f32, method 2"),
        (record(who=identity(definition="x")), "smollm2-135m-int8 tg4, a8-g32, KV f32, definition x"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_computes_otherwise_is_another_group(other: Record, heading: str) -> None:
    slow = record(who=identity(backend="slow"), samples=samples(step_s=9))
    table = build_table([slow, record(who=identity(backend="slower"), samples=samples(step_s=18)), other])
    assert len(table.groups) == 2 and {row.relative_ratio for row in table.rows} == {1.0, 0.5}
    assert {group[0].group for group in table.groups if group[0].first is other} == {heading}
    lines = render_terminal(table).splitlines()
    assert heading in lines and f"| **{heading}** |" in render_markdown(table)
    assert f'scope="rowgroup">{heading}</th>' in render_html(table)
    assert {line["group"] for line in csv.DictReader(io.StringIO(render_csv(table)))} >= {heading}


@pytest.mark.parametrize(
    "phase",
    [
        Phase(activations="a8-g32", compute="f32"),
        Phase(activations="f16", compute="f32"),
        Phase(activations="f16", compute="f16"),
        Phase(activations="f16", compute="f32", attention_sums="f16"),
        Phase(activations="f32", compute="f32"),
    ],
    ids=str,
)
def test_codes_held_as_f16_are_ranked_with_no_int8_of_another_arithmetic(phase: Phase) -> None:
    held = record(facts=facts(prefill=HALF, decode=HALF, weights=HELD, kv_cache="f16"))
    true = record(facts=facts(prefill=phase, decode=phase, kv_cache="f16"), samples=samples(step_s=0.1))
    table = build_table([held, true])
    assert [row.relative_ratio for row in table.rows] == [1.0, 1.0] and len(table.groups) == 2
    assert {text["precision"] for text in page(build_table([held]))} == {"a16-f16+out16, KV f16"}


def test_sums_and_results_in_half_are_two_things() -> None:
    odd = [
        Phase(activations="a8-g32", compute="f32", **{part: "f16"}) for part in ("attention_sums", "product_results")
    ]
    assert len(build_table([record(facts=facts(decode=each)) for each in odd]).groups) == 2


def test_the_share_stands_in_every_table_where_anything_is_elsewhere() -> None:
    whole = msgspec.structs.replace(fallback(0.0), placement=fallback(0.0).placement[:1], elsewhere_share=None)
    some, others = record(facts=fallback(0.03)), record(facts=fallback(0.0), who=identity(backend="x"))
    bad = record(facts=fallback(0.5), who=identity(backend="y"), status="invalid", reason=Reason(what="elsewhere"))
    assert "on provider" not in render_terminal(build_table([record(facts=whole), record(who=identity(backend="z"))]))
    for found, text in ((some, "97 %"), (others, "100 % of products"), (bad, "50 %")):
        table = build_table(
            [record(facts=whole, who=identity(backend="all")), record(who=identity(backend="z")), found]
        )
        told = {row.first.identity.backend: cells for row, cells in zip(table.rows, page(table), strict=True)}
        assert told[found.identity.backend]["on provider"] == text
        assert (told["all"]["on provider"], told["z"]["on provider"]) == ("100 %", NOT_MEASURED)
        for shown in (render_terminal(table), render_markdown(table), render_html(table)):
            assert "on provider" in shown and text in shown
    (line,) = csv.DictReader(io.StringIO(render_csv(build_table([some]))))
    assert float(line["on_provider_ratio"]) == pytest.approx(0.97)


def test_what_ran_elsewhere_is_neither_averaged_nor_ranked_with_what_did_not() -> None:
    fast, slow = samples(step_s=0.1), samples(step_s=0.4)
    same = identity()
    records = [record(who=same, samples=slow), record(who=same, facts=fallback(0.03), samples=fast)]
    records += [record(who=same, facts=fallback(0.03), samples=fast)]
    table = build_table(records)
    assert sorted(len(row.records) for row in table.rows) == [1, 2]
    assert [row.relative_ratio for row in table.rows] == [1.0, 1.0]
    with pytest.raises(ValueError, match="one series"):
        summarize(records)


def test_where_nothing_is_ranked_columns_say_what_headings_would() -> None:
    kinds = [record(facts=facts(kv_cache=kv)) for kv in ("f16", "f32")]
    table = build_table([*kinds, record(who=identity(fidelity="exact"), facts=facts(kv_cache="f16"))])
    assert len(table.groups) == 3 and not table.headed
    assert [(text["precision"], text["fidelity"]) for text in page(table)] == [
        ("a8-g32, KV f16", "native"), ("a8-g32, KV f32", "native"), ("a8-g32, KV f16", "exact"),
    ]  # fmt: skip
    assert "relative" not in page(table)[0]
    assert build_table([*kinds, record(who=identity(workload=chunked(64)))]).headed, "no column has the chunk"


@pytest.mark.parametrize(
    "other",
    [
        record(who=identity(backend="openvino", options={"streams": 1})),
        record(who=identity(host_id="h2", devices=[DeviceRef(kind="gpu", name="A card")])),
        record(facts=facts(weights="q8_0 group 32", isa="avx2", resident_weight_bytes=2000)),
    ],
    ids=["backend", "device", "layout"],
)
def test_what_is_to_be_compared_is_one_group(other: Record) -> None:
    table = build_table([record(), other])
    assert len(table.groups) == 1 and len(table.rows) == 2
    assert {"model", "workload", "precision"} <= set(page(table)[0]), "without a heading columns say it"


def test_a_share_is_of_the_fastest_proven_row_and_only_proven_rows_have_one() -> None:
    rows = [
        record(who=identity(backend="half"), samples=samples(step_s=0.2)),
        record(who=identity(backend="best"), samples=samples(step_s=0.1)),
        record(who=identity(backend="odd"), samples=samples(step_s=0.01), status="unproven", reason=NO_REFERENCE),
        record(who=identity(backend="theirs"), samples=samples(step_s=0.01), origin="imported"),
        record(who=identity(backend="wrong"), samples=samples(step_s=0.001), status="invalid", reason=NO_REFERENCE),
    ]
    table = build_table(rows)
    assert relative(table) == {"best": 1.0, "half": pytest.approx(0.5), "odd": None, "theirs": None, "wrong": None}
    assert [text["relative"] for text in page(table)] == [
        "████████ 100 %", "████░░░░ 50 %", NOT_MEASURED, NOT_MEASURED, NOT_MEASURED,
    ]  # fmt: skip
    assert [text["tok/s"] for text in page(table)] == ["10.0", "5.00", "100", "100", NOT_MEASURED], "absolute beside it"
    assert relative(build_table(rows[2:])) == {"odd": None, "theirs": None, "wrong": None}
    assert "relative" not in page(build_table(rows[1:]))[0], "nothing to compare with"


def test_groups_without_a_proven_row_come_last_all_others_by_name() -> None:
    failed = record(who=identity(model="a"), status="failed", reason=NO_REFERENCE, facts=None, samples=[])
    claim = record(who=identity(model="b"), origin="imported", facts=None)
    slow, fast = (record(facts=facts(kv_cache=kv), samples=samples(step_s=s)) for kv, s in (("f16", 9), ("f32", 0.1)))
    table = build_table([failed, claim, fast, slow])
    assert [group[0].first for group in table.groups] == [slow, fast, claim, failed]


cases = st.tuples(
    st.sampled_from(["int8", "int4"]),
    st.sampled_from(["pp512", "tg4"]),
    st.sampled_from(["native", "exact"]),
    st.sampled_from(["f16", "f32", None]),
    st.sampled_from(["ok", "unproven", "invalid", "failed"]),
    st.sampled_from(["measured", "imported"]),
    st.sampled_from(["onnx", "openvino"]),
    st.floats(1e-3, 1e3),
)


@given(st.lists(cases, max_size=8))
def test_no_group_mixes_anything(rows: list[tuple[Any, ...]]) -> None:
    records = [
        record(
            workload,
            who=identity(workload, scheme=scheme, fidelity=fidelity, backend=backend),
            facts=facts(kv_cache=kv) if kv else None,
            status=status,
            reason=None if status == "ok" else NO_REFERENCE,
            origin=origin,
            samples=samples(workload, step_s=time_s, prefill_s=time_s),
        )
        for scheme, workload, fidelity, kv, status, origin, backend, time_s in rows
    ]
    table = build_table(records)
    assert Counter(r.record_id for row in table.rows for r in row.records) == Counter(r.record_id for r in records)
    assert len({group[0].group for group in table.groups}) == len(table.groups)
    for group in table.groups:
        (common,) = {msgspec.json.encode(must_be_equal(r)) for row in group for r in row.records}
        assert len({row.group for row in group}) == 1, common
        shares = [row.relative_ratio for row in group if row.first.proven and row.headline.value]
        assert [row.relative_ratio for row in group][: len(shares)] == sorted(filter(None, shares), reverse=True)
        assert not shares or max(filter(None, shares)) == 1.0
        assert all(row.relative_ratio is None for row in group if not row.first.proven)


@given(st.floats(0, 1))
def test_a_bar_has_one_width(share: float) -> None:
    blocks, number, unit = bar(share).split(" ")
    assert cell_len(blocks) == 8 and blocks == "█" * blocks.count("█") + "░" * blocks.count("░")
    assert abs(blocks.count("█") / 8 - share) <= 1 / 16 + 1e-9 and unit == "%"
    assert abs(float(number) - share * 100) <= 0.5 + 1e-9


def test_an_interval_or_how_little_there_is() -> None:
    (one,) = page(build_table([record()]))
    assert (one["95 % interval"], one["status"]) == ("n = 1", "ok, few launches")
    launches = [record(samples=samples(step_s=s)) for s in (0.5, 0.5, 0.51, 0.49, 0.5)]
    (five,) = page(build_table(launches))
    assert re.fullmatch(r"1\.9\d to 2\.0\d, n = 5", five["95 % interval"]) and five["status"] == "ok"
    (four,) = page(build_table(launches[1:]))
    assert four["95 % interval"].endswith(", n = 4") and four["status"] == "ok, few launches"
    (cells,) = csv.DictReader(io.StringIO(render_csv(build_table(launches))))
    assert float(cells["headline_tokens_per_s.low"]) < 2 < float(cells["headline_tokens_per_s.high"])
    (none,) = page(build_table([record(status="failed", reason=NO_REFERENCE, samples=[])]))
    assert (none["95 % interval"], none["status"]) == (NOT_MEASURED, "failed"), "no rate that launches would mend"


def test_badges_of_what_nobody_proved() -> None:
    unproven = record(status="unproven", reason=NO_REFERENCE, warnings=["hot"])
    imported = record(origin="imported", who=identity(backend="theirs"))
    assert {text["status"] for text in page(build_table([unproven, imported]))} == {
        "unproven!, few launches", "imported, few launches",
    }  # fmt: skip


def started(at_utc: str | None) -> Record:
    return record(info=Info(started_at_utc=at_utc))


@pytest.mark.parametrize(
    ("at_utc", "today", "days", "stale"),
    [
        ("2026-01-12T23:59:59Z", TODAY, 0, False),
        ("2026-01-02T03:04:05Z", TODAY, 10, False),
        ("2026-01-02T03:04:05Z", date(2026, 4, 2), 90, False),
        ("2026-01-02T03:04:05Z", date(2026, 4, 3), 91, True),
        ("2026-01-13T00:00:00Z", TODAY, None, False),
        ("yesterday", TODAY, None, False),
        (None, TODAY, None, False),
        ("2026-01-02T03:04:05Z", None, None, False),
    ],
)
def test_the_age_of_a_row(at_utc: str | None, today: date | None, days: int | None, stale: bool) -> None:
    (text,) = page(build_table([started(at_utc)], today))
    assert text.get(f"age on {today}") == (None if days is None else f"{days} d")
    assert ("stale" in text["status"]) == stale
    (cells,) = csv.DictReader(io.StringIO(render_csv(build_table([started(at_utc)], today))))
    assert cells["age_days"] == ("" if days is None else str(days))


def test_the_newest_launch_decides() -> None:
    table = build_table([started("2026-01-02T00:00:00Z"), started("2026-01-11T00:00:00Z"), started("?")], TODAY)
    assert [row.age_days for row in table.rows] == [1]


def test_a_page_names_the_device_and_a_terminal_has_none_of_this() -> None:
    table = build_table([record()], TODAY)
    assert page(table)[0]["device"] == "A CPU"
    (line,) = [line for line in render_terminal(table).splitlines() if " onnx " in line]
    assert "launches" not in line and "n = " not in line and "A CPU" not in line


def test_long_headings_keep_to_the_width() -> None:
    name = "a-model-" + "of-a-very-long-name-" * 5
    fast = record(who=identity(backend="fast"))
    table = build_table([record(), fast, record(who=identity(model=f"{name} and so on " * 3))])
    lines = render_terminal(table).splitlines()
    assert all(len(line) <= 80 for line in lines if name not in line)
    assert sum(name in line for line in lines) == 3, "no name is broken"


def test_indented_rows_keep_to_the_width_colored_or_not() -> None:
    names = [" ".join(letter * 2 for _ in range(40)) for letter in "ab"]
    cards = [[DeviceRef(kind="gpu", name=name)] for name in names]
    table = build_table([record(w, who=identity(w, devices=card)) for card in cards for w in ("tg4", "pp512")])
    plain = render_terminal(table)
    assert max(map(len, plain.splitlines())) == 80 and plain.startswith("  backend ")
    colored = re.sub(r"\x1b\[[0-9;]*m", "", render_terminal(table, color=True))
    assert [line.rstrip() for line in colored.splitlines()] == plain.splitlines()


class Tags(HTMLParser):
    """Every tag with its attributes; unclosed ones fail."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


STRUCTURE = set("html head meta title style body div table thead tbody tr th td span ul li b dl dt dd p".split())  # noqa: SIM905


@pytest.mark.parametrize("text", [HOSTILE, '"><img src=x onerror=alert(1)>', "</style><script>", "&lt;b&gt;", "<!--"])
def test_html_is_inert_and_loads_nothing(text: str) -> None:
    why = Reason(what=text)
    who = identity(model=text, backend=text, scheme=text, devices=[DeviceRef(kind="cpu", name=text)])
    compared = [record(), record(who=identity(backend="slow"), samples=samples(step_s=9))]
    parsed = Tags(render_html(build_table([record(who=who, status="unproven", reason=why), *compared], TODAY)))
    assert {tag for tag, _ in parsed.tags} == STRUCTURE
    names = {name for _, attributes in parsed.tags for name in attributes}
    assert names <= {"lang", "charset", "name", "content", "http-equiv", "class", "scope", "colspan", "style"}
    styles = {attributes["style"] for _, attributes in parsed.tags if "style" in attributes}
    assert all(re.fullmatch(r"width:\d+%", style or "") for style in styles)
    shown = " ".join(re.sub(r"[\x00-\x1f]+", " ", text).split())
    assert any(shown in " ".join(said.split()) for said in parsed.texts), "what it says can still be read"


def test_an_honest_page_has_no_address_and_draws_its_bars() -> None:
    rows = [record(who=identity(backend=b), samples=samples(step_s=s)) for b, s in (("one", 0.1), ("two", 0.4))]
    text = render_html(build_table(rows, TODAY))
    assert "//" not in text and "url(" not in text and "default-src 'none'" in text
    assert re.findall(r"width:(\d+)%", text) == ["100", "25"] and "25 %" in text and "10.0" in text
    assert "<tbody>\n<tr><td>" in text, "one group needs no heading"
    assert Tags(render_html(build_table([]))).tags
