"""The table model and its renderings: order, columns, escaping, width."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.reports.columns import COLUMNS
from bench.reports.details import record_details, render_details
from bench.reports.render import render_csv, render_markdown, render_terminal
from bench.reports.table import Table, build_table, latest
from bench.results.ids import new_uuid7
from bench.results.record import Record
from bench.results.schema import Covariates, Gate, Info, Reason, Sample
from tests.records import identity, record, samples

OUT_OF_MEMORY = Reason(what="out of memory", phase="open", remedy="bench list models")


def failed(backend: str = "xpu") -> Record:
    return record(
        status="failed", reason=OUT_OF_MEMORY, who=identity(backend=backend), samples=[], facts=None, gate=None
    )


def headers(table: Table) -> list[str]:
    return [column.header for column in table.columns]


def texts_of(table: Table) -> list[dict[str, str]]:
    """What people read, by header, row by row."""
    return [dict(zip(headers(table), table.texts(row), strict=True)) for row in table.rows]


def test_the_default_columns() -> None:
    assert headers(build_table([record("512/5")])) == [
        "model", "backend", "workload", "status", "tok/s", "ttft", "tpot", "mbu", "gate", "record",
    ]  # fmt: skip
    assert headers(build_table([record("pp512", ceiling=None, gate=None)])) == [
        "model", "backend", "workload", "status", "tok/s", "record",
    ]  # fmt: skip


def test_launches_of_one_series_are_one_row_with_an_interval() -> None:
    table = build_table([record(samples=samples(step_s=s)) for s in (0.5, 0.52)])
    assert len(table.rows) == 1 and "±" in headers(table)
    assert table.rows[0].summary.n_launches == 2


@pytest.mark.parametrize(
    "other",
    [
        record(status="unproven", reason=Reason(what="no reference")),
        record(origin="imported"),
        record(covariates=Covariates(runtime={"onnxruntime": "1.32.0"})),
        record(who=identity(options={"threads": 1})),
        record("pp512"),
    ],
)
def test_what_differs_is_never_averaged(other: Record) -> None:
    assert len(build_table([record(), other]).rows) == 2


def test_proven_rows_come_first_and_the_fastest_leads_them() -> None:
    fast, slow = (record(who=identity(backend=b), samples=samples(step_s=s)) for b, s in (("zz", 0.1), ("aa", 0.9)))
    fastest = samples(step_s=0.001)
    unproven = record(status="unproven", reason=Reason(what="no reference"), samples=fastest)
    imported = record(origin="imported", samples=fastest)
    invalid = record(status="invalid", reason=Reason(what="impossible"), samples=fastest)
    unsupported = record(status="unsupported", reason=Reason(what="not wired"), samples=[])
    table = build_table([unsupported, failed(), invalid, imported, unproven, slow, fast])
    texts = texts_of(table)
    assert [t["status"] for t in texts][:2] == ["ok", "ok"]
    assert {t["status"] for t in texts[2:4]} == {"unproven", "imported"}
    assert [t["status"] for t in texts][4:] == ["invalid", "unsupported", "failed"], "what failed tells no precision"
    assert [t["backend"] for t in texts][:2] == ["zz", "aa"]
    assert headers(table)[-1] == "reason"
    assert texts[6]["reason"] == "out of memory; bench list models"


def test_columns_appear_when_they_tell_rows_apart() -> None:
    table = build_table([record(who=identity(options={"threads": n, "arena": True})) for n in (1, 2)])
    assert "options" in headers(table)
    assert {row.options["threads"] for row in table.rows} == {1, 2} and "arena" not in table.rows[0].options
    other_backend = record(who=identity(backend="openvino", provider=None, options={"streams": 1}))
    assert headers(build_table([record(), other_backend])) == headers(build_table([record()]))
    assert "provider" in headers(build_table([record(), record(who=identity(provider="CUDAExecutionProvider"))]))


def test_latest_keeps_the_newest_sweep_of_each_series() -> None:
    sweeps = [new_uuid7(), new_uuid7()]
    old, new_a, new_b = (record(info=Info(sweep_id=sweeps[i])) for i in (0, 1, 1))
    other = record("pp512", info=Info(sweep_id=sweeps[0]))
    lone_old, lone_new = record("512/5"), record("512/5")
    assert latest([old, new_a, other, new_b, lone_old, lone_new]) == [new_a, other, new_b, lone_new]


def test_neither_own_nor_published_records_hide_the_other() -> None:
    """The first sweep on a fresh checkout leaves the committed reference in the table."""
    reference = Info(sweep_id=new_uuid7(), case_key="c/0", redacted=True)
    published = [record(info=reference), record(info=reference)]
    own = record(info=Info(sweep_id=new_uuid7(), case_key="c/0"))
    assert latest([*published, own]) == [*published, own]
    table = build_table([*published, own])
    assert {(t["whose"], t["n"]) for t in texts_of(table)} == {("published", "2"), ("own", "1")}
    assert {"whose", "n"}.isdisjoint(headers(build_table(published))), "where all rows agree they say nothing"
    elsewhere = record(who=identity(model="other"), info=Info(redacted=True))
    assert "whose" in headers(build_table([own, elsewhere])), "rows need not look alike"


def test_a_record_is_found_by_what_the_table_shows() -> None:
    two = [record(), record()]
    (row,) = texts_of(build_table(two))
    assert two[1].record_id.endswith(row["record"]) and len(row["record"]) == 6
    (cells,) = csv.DictReader(io.StringIO(render_csv(build_table(two))))
    assert cells["record_ids"] == " ".join(one.record_id for one in two)


def test_a_record_with_warnings_says_so_in_every_table() -> None:
    hot, calm = (record(w, warnings=each) for w, each in (("tg4", ["a", "hot"]), ("pp512", [])))
    also = record(warnings=["hot"])
    table = build_table([hot, also, calm])
    assert [(t["status"], t["warnings"]) for t in texts_of(table)] == [("ok", "–"), ("ok!", "a; hot")]
    rows = list(csv.DictReader(io.StringIO(render_csv(table))))
    assert {(row["status"], row["warnings"]) for row in rows} == {("ok", "a; hot"), ("ok", "")}
    text = render_terminal(table)
    assert "ok!" in text and text.endswith("\nsmollm2-135m-int8 onnx tg4: warning: a; hot\n")
    assert render_markdown(table).endswith("\n\n- **smollm2-135m-int8 onnx tg4:** warning: a; hot\n")
    assert "warnings" not in headers(build_table([calm]))


def test_the_gate_of_an_exact_row_is_told() -> None:
    exact = record(gate=Gate(verdict="passed", class_="f32", error=1e-6))
    off = record("pp512", gate=Gate(verdict="failed", class_="f32", error=1e-3))
    pp512, tg4 = texts_of(build_table([exact, off]))
    assert (tg4["gate"], pp512["gate"]) == ("exact", "–")
    (cells,) = csv.DictReader(io.StringIO(render_csv(build_table([exact]))))
    assert cells["gate_ratio"] == "", "a column of numbers"


def test_a_case_that_failed_and_now_executes_shows_what_it_does_now() -> None:
    """What executed is part of the identity and a failed record does not know it: what was asked decides."""
    failed = record(status="failed", who=identity(options={"threads": None}), info=Info(case_key="c/0"))
    better = record(who=identity(options={"threads": 2}), info=Info(case_key="c/0"))
    elsewhere = record(who=identity(host_id="other"), info=Info(case_key="c/0"))
    assert failed.series_key != better.series_key
    assert latest([failed, better, elsewhere]) == [better, elsewhere]


def test_csv_holds_every_column_in_base_units() -> None:
    (row,) = csv.DictReader(io.StringIO(render_csv(build_table([record("512/5")]))))
    assert list(row) == [column.key for column in COLUMNS] and len(set(row)) == len(COLUMNS)
    assert (row["decode_tokens_per_s"], row["ttft_s"], row["decode_tokens_per_s.low"]) == ("2.0", "2.0", "")
    assert row["pg_tokens_per_s"] == row["reason"] == ""
    assert row["n_samples"] == "3"


HOSTILE = "=cmd|'/c calc'!A1 | `x` <script>alert(1)</script> [a](http://evil.example) \x1b[31m\nnext"


def hostile(text: str = HOSTILE) -> Table:
    why = Reason(what=text, remedy=None)
    return build_table(
        [record(status="invalid", origin="imported", who=identity(model=text, backend=text), reason=why)]
    )


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\u200b=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    (row,) = csv.DictReader(io.StringIO(render_csv(hostile(text))))
    for key in ("model", "backend", "reason"):
        assert row[key].startswith("'"), row[key]


def test_negative_numbers_stay_numbers() -> None:
    assert "\n'" not in render_csv(build_table([record()])) and ",'" not in render_csv(build_table([record()]))


def test_markdown_is_one_line_a_row_and_inert() -> None:
    lines = render_markdown(hostile()).splitlines()
    assert len(lines) == 5 and lines[3] == "" and lines[4].startswith("- **")
    cells = lines[2].replace("\\|", "").split("|")
    assert len(cells) == len(lines[0].split("|"))
    for line in (lines[2], lines[4]):
        for active in ("<script", "](", " `x`", "http://", "\x1b"):
            assert active not in line.replace("\\]", "").replace("\\`", ""), active


def test_the_terminal_gets_no_control_characters_and_no_markup() -> None:
    text = render_terminal(hostile("[bold]x[/bold] \x1b[31m\x07\u202eevil"))
    assert not any(ord(c) < 32 and c != "\n" for c in text) and "\u202e" not in text
    assert "[bold]x[/bold]" in text


def test_the_usual_table_fits_80_columns() -> None:
    records = [
        record(w, who=identity(w, backend=b), samples=samples(w, step_s=0.5 + n / 100))
        for w in ("pp512", "tg4", "pp512+tg4", "512/5")
        for b in ("onnx", "openvino", "llamacpp")
        for n in range(2)
    ]
    text = render_terminal(build_table([*records, failed()]))
    assert max(map(len, text.splitlines())) <= 80
    assert "smollm2-135m-int8 xpu tg4: failed: out of memory; bench list models" in text
    assert "\x1b" not in text and "\x1b[" in render_terminal(build_table(records), color=True)


def test_long_names_break_behind_hyphens_whether_colored_or_not() -> None:
    name = "a-model-of-a-very-long-name-that-nobody-remembers-7b"
    records = [
        record("512/5", who=identity("512/5", model=name, provider=f"{p}ExecutionProvider"), warnings=["hot"])
        for p in ("CPU", "Other")
    ]
    table = build_table(records)
    plain = render_terminal(table)
    first_row = [line.split()[0] for line in plain.splitlines()[1:]][: (plain.count("\n") - 2) // 2]
    assert len(first_row) > 1 and "".join(first_row) == f"{name}-int8"
    assert all(part.endswith("-") for part in first_row[:-1])
    assert max(map(len, plain.splitlines())) <= 80 and " CPU " in plain and "ExecutionProvider" not in plain
    colored = render_terminal(table, color=True)
    assert "\x1b[" in colored
    assert [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", colored).splitlines()] == plain.splitlines()


def test_equal_reasons_share_one_line() -> None:
    rows = [
        record(w, who=identity(w, backend=b), status="failed", reason=OUT_OF_MEMORY, samples=[])
        for w in ("tg4", "pp512")
        for b in ("onnx", "xpu")
    ]
    text = " ".join(render_terminal(build_table(rows)).split())
    assert text.count("out of memory") == 1
    assert "smollm2-135m-int8 onnx pp512, tg4; smollm2-135m-int8 xpu pp512, tg4: failed: out of memory;" in text


words = st.text(st.characters(categories=["L", "N", "P"], max_codepoint=0x24F), min_size=1, max_size=30)


@given(st.lists(st.tuples(words, words, st.floats(1e-6, 1e6)), min_size=1, max_size=4), st.integers(20, 120))
def test_no_number_is_ever_cut(rows: list[tuple[str, str, float]], width: int) -> None:
    table = build_table(
        [
            record(who=identity(model=m, backend=b, options={"o": m}), samples=[Sample(step_s=[s] * 4)])
            for m, b, s in rows
        ]
    )
    text = render_terminal(table, width=width)
    for row in table.rows:
        for column in table.columns:
            if column.numeric:
                assert column.read(row) in text


def test_an_empty_table_is_only_its_header() -> None:
    table = build_table([])
    assert render_terminal(table).count("\n") == 1 == render_csv(table).count("\n")
    assert render_markdown(table).count("\n") == 2


def test_details_show_everything_measured_and_nothing_else() -> None:
    text = render_details(record_details(record("512/5")))
    for expected in (
        "2.00 tokens/s",
        "[decode.v1]",
        "class      a8-g32",
        "int8 row",
        "onnxruntime",
        "1.00 kB",
        "A CPU",
    ):
        assert expected in text, expected
    assert "None" not in text and "energy" not in text
    why = render_details(record_details(failed()))
    for expected in ("failed", "out of memory", "open", "bench list models"):
        assert expected in why


def test_details_keep_fields_of_a_newer_version() -> None:
    from bench.results.record import decode, encode

    raw: dict[str, Any] = msgspec.json.decode(encode(record()))
    raw["gate"]["later_ratio"] = 0.5
    raw["schema_version"] = "1.9"
    assert "later_ratio" in render_details(record_details(decode(msgspec.json.encode(raw))))
