"""Every damaged file imports what is whole in it, or gives one clear error with file and line, as expected.txt says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import UsageError
from bench.interchange import text
from bench.interchange.claims import claimed_record
from bench.interchange.rows import Scan, read_rows
from bench.reports.html import render_html
from bench.reports.render import render_csv, render_markdown, render_terminal
from bench.reports.table import build_table
from bench.results.ids import new_uuid7
from bench.results.record import Record, decode, encode
from tests.interchange.reading import DAMAGED, HERE, REAL

EXPECTED = dict(line.split(" | ", 1) for line in (HERE / "expected.txt").read_text(encoding="utf-8").splitlines())
LAUNCH = new_uuid7()


def imported(data: bytes, name: str, scan: Scan) -> list[Record]:
    records = [claimed_record(row, LAUNCH, name) for row in read_rows(data, name, scan)]
    for record in records:
        encode(record)
    return records


def outcome(path: Path) -> str:
    scan = Scan()
    try:
        count = len(imported(path.read_bytes(), path.name, scan))
    except UsageError as error:
        return str(error)
    cut = f", cut in line {scan.cut_line}" if scan.cut_line else ""
    return f"{count} rows{cut}" + (f", {scan.skipped_lines} lines skipped" if scan.skipped_lines else "")


def test_every_damaged_file_is_expected_to_do_something() -> None:
    assert sorted(path.name for path in DAMAGED.iterdir()) == sorted(EXPECTED)
    assert len(EXPECTED) >= 40


@pytest.mark.parametrize("path", sorted(DAMAGED.iterdir()), ids=lambda path: path.name)
def test_damage_is_told_from_what_is_whole(path: Path) -> None:
    said = outcome(path)
    assert said == EXPECTED[path.name]
    assert "\n" not in said and said.isprintable()


@pytest.mark.parametrize("name", ["sweep.jsonl", "sweep.json", "sweep.csv"])
def test_a_file_cut_anywhere_gives_its_whole_rows_and_no_other(name: str) -> None:
    data = (REAL / name).read_bytes()
    whole = imported(data, name, Scan())
    for end in range(0, len(data), 37):
        scan = Scan()
        try:
            found = imported(data[:end], name, scan)
        except UsageError as error:
            assert any(why in str(error) for why in ("before its first", "empty", "no row")), (end, str(error))
            found = []
        assert [r.source for r in found] == [r.source for r in whole[: len(found)]], end
        # what begins in the first 20 bytes of a row may still be seen as other text
        assert len(found) >= data[:end].count(b"stddev_ts") - 2, end


def test_a_file_larger_than_allowed_is_refused_by_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MOST_BYTES", 1 << 20)
    data = (REAL / "sweep.jsonl").read_bytes() * 200
    with pytest.raises(UsageError, match=r"^big: larger than 1 MiB; split it"):
        imported(data, "big", Scan())


def test_names_cannot_leave_their_cell() -> None:
    files = ["control-characters.jsonl", "formula.csv"]
    table = build_table([r for name in files for r in imported((DAMAGED / name).read_bytes(), name, Scan())])
    for rendered in (render_terminal(table), render_markdown(table), render_csv(table), render_html(table)):
        assert rendered.replace("\n", "").isprintable()
    assert "<b>" not in render_markdown(table) and ",=" not in render_csv(table)


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_give_a_traceback(data: bytes) -> None:
    try:
        imported(data, "x", Scan())
    except UsageError as error:
        assert str(error).startswith("x")


LINES = (REAL / "sweep.jsonl").read_text(encoding="utf-8")[:2500]
CELLS = (REAL / "sweep.csv").read_text(encoding="utf-8")[:1200]
PIECES = st.sampled_from(
    ["", "{", "}", "[", "]", '"', ",", ":", "nan", "-inf", "\\", "\n", "\x00", "1e999", "null", "é", "\ud83d"]
)
FIELDS = st.sampled_from(
    [
        *("n_gen", "n_depth", "avg_ns", "samples_ns", "samples_ts", "model_type", "devices", "test_time", "stddev_ts"),
        *("flash_attn", "gpu_info", "n_batch", "model_filename", "build_number", "new\x1b[31m"),
    ]
)


EDITS = st.lists(st.tuples(st.integers(0, 2500), st.integers(0, 40), PIECES), max_size=4)


@settings(deadline=None)
@given(st.sampled_from([LINES, CELLS]), EDITS)
def test_no_edit_gives_a_traceback(start: str, edits: list[tuple[int, int, str]]) -> None:
    changed = start
    for position, length, piece in edits:
        changed = changed[:position] + piece + changed[position + length :]
    try:
        imported(changed.encode(errors="surrogatepass"), "x", Scan())
    except UsageError as error:
        assert str(error).startswith("x") and "\n" not in str(error)


@pytest.mark.parametrize("number", [2**64 - 1, 2**63, -(2**63)])
def test_the_largest_numbers_survive_the_store(number: int) -> None:
    row = {**json.loads(LINES.splitlines()[0]), "new": number}
    (kept,) = imported(json.dumps(row).encode(), "x", Scan())
    again = decode(encode(kept))
    assert again.source is not None and again.source.fields["new"] == number


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@settings(deadline=None)
@given(st.dictionaries(FIELDS, VALUES))
def test_no_value_gives_a_traceback(changed: dict[str, object]) -> None:
    row = {**json.loads(LINES.splitlines()[0]), **changed}
    try:
        imported(json.dumps(row).encode(), "x", Scan())
    except UsageError as error:
        assert str(error).startswith("x:1: ") and str(error).isprintable()
