"""Numbers as text, and text as numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.units import parse_share, render_share


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (1.0, "100 %"),
        (0.0, "0 %"),
        (0.97, "97 %"),
        (1 - 0.03, "97 %"),
        (0.969, "96.9 %"),
        (0.031, "3.1 %"),
        (0.1, "10 %"),
        (0.4567, "46 %"),
        (0.9996, "99.96 %"),
        (1 - 1e-12, "100 %"),
        (1e-12, "0 %"),
    ],
)
def test_shares(ratio: float, text: str) -> None:
    assert render_share(ratio) == text


@given(st.floats(1e-5, 1 - 1e-5))
def test_no_part_reads_as_all_or_nothing(ratio: float) -> None:
    text = render_share(ratio)
    assert text not in ("100 %", "0 %") and abs(float(text[:-2]) / 100 - ratio) <= 0.006


@pytest.mark.parametrize(("text", "ratio"), [("5%", 0.05), ("0.05", 0.05), (" 2.5 % ", 0.025), ("99.9%", 0.999)])
def test_shares_are_read(text: str, ratio: float) -> None:
    assert parse_share(text) == pytest.approx(ratio)


@pytest.mark.parametrize("text", ["", "%", "0", "0%", "1", "100%", "-1%", "nan", "inf", "5%%", "5% x", "five"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_share(text)
