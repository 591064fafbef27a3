"""Blocks between markers of a page: found, filled, everything else left as it is."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import UsageError
from bench.reports.blocks import filled, find_blocks
from bench.reports.render import render_markdown
from bench.reports.table import build_table, latest
from bench.results.store import Store

ROOT = Path(__file__).parents[2]
BEGIN, END = b"<!-- bench table -->\n", b"<!-- end of bench table -->\n"

others = st.binary(max_size=60).filter(lambda text: b"<!--" not in text).map(lambda text: text + b"\n")
texts = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=40).map(lambda text: f"| {text} |\n")


@given(st.lists(st.tuples(others, texts, texts), min_size=1, max_size=4), others)
def test_only_what_lies_between_the_markers_changes(parts: list[tuple[bytes, str, str]], rest: bytes) -> None:
    page = b"".join(other + BEGIN + old.encode() + END for other, old, _ in parts) + rest
    new = [text for _, _, text in parts]
    once = filled(page, find_blocks(page, "p"), new)
    assert once == b"".join(other + BEGIN + f"\n{text}\n".encode() + END for other, _, text in parts) + rest
    assert filled(once, find_blocks(once, "p"), new) == once


def test_lines_end_as_they_did() -> None:
    page = b"a\r\n<!-- bench table -->\r\nold\r\n<!-- end of bench table -->\r\n\xff\xfe\rz"
    done = filled(page, find_blocks(page, "p"), ["x\ny\n"])
    assert done == b"a\r\n<!-- bench table -->\r\n\r\nx\r\ny\r\n\r\n<!-- end of bench table -->\r\n\xff\xfe\rz"


@pytest.mark.parametrize(
    ("marker", "asked"),
    [
        ("<!-- bench table -->", ""),
        ("<!--bench table-->", ""),
        ("<!--  bench  table   --model a  -->  ", "--model a"),
        ("<!-- bench table --model 'é x' --all -->", "--model 'é x' --all"),
    ],
)
def test_what_a_marker_asks(marker: str, asked: str) -> None:
    (block,) = find_blocks(f"\n{marker}\n<!--end of bench table-->".encode(), "p")
    assert (block.asked, block.line) == (asked, 2)


@pytest.mark.parametrize(
    ("page", "line", "says"),
    [
        (b"", None, "no block"),
        (b"text <!-- bench table -->\n", None, "no block"),
        (b"    <!-- bench table -->\n    <!-- end of bench table -->\n", None, "no block"),
        (b"<!-- bench tables -->\n<!-- end of bench tables -->\n", None, "no block"),
        (BEGIN, 1, "does not end"),
        (b"\n" + END, 2, "did not begin"),
        (END + BEGIN, 1, "did not begin"),
        (BEGIN + BEGIN + END, 2, "inside the one of line 1"),
        (BEGIN + END + END, 3, "did not begin"),
        (BEGIN + END + BEGIN, 3, "does not end"),
        (b"<!-- bench table\n" + END, 1, "not alone"),
        (b"<!-- bench table -->| a |\n" + END, 1, "not alone"),
        (b"<!-- bench table --><!-- end of bench table -->\n", 1, "not alone"),
        (BEGIN + b"<!-- end of bench table --all -->\n", 2, "not alone"),
        (b"<!-- bench table \xff -->\n" + END, 1, "not UTF-8"),
    ],
)
def test_markers_that_cannot_be_meant(page: bytes, line: int | None, says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        find_blocks(page, "PAGE.md")
    assert error.value.where == ("PAGE.md" if line is None else f"PAGE.md:{line}")


@given(st.lists(st.sampled_from([BEGIN, END, b"x\n", b"<!-- bench table", b"-->", b"\n", b" "]), max_size=12))
def test_any_order_of_markers_is_blocks_or_one_error(parts: list[bytes]) -> None:
    page = b"".join(parts)
    try:
        blocks = find_blocks(page, "p")
    except UsageError:
        return
    ends = [0, *(block.end for block in blocks)]
    assert all(end <= block.start <= block.end for end, block in zip(ends, blocks, strict=False))


def test_the_readme_shows_the_records_of_this_project() -> None:
    """`scripts/bench table --update README.md` mends it. Own launches beside the committed ones do not count."""
    page = (ROOT / "README.md").read_bytes()
    (block,) = find_blocks(page, "README.md")
    assert block.asked == "--published"
    day = re.search(rb"age on (\d{4}-\d\d-\d\d)", page[block.start : block.end])
    assert day, "the day that ages are counted to"
    published = latest(Store(ROOT / "results").records(lambda record: record.info.redacted))
    table = build_table(published, date.fromisoformat(day[1].decode()))
    assert filled(page, [block], [render_markdown(table)]) == page
