"""Progress on standard error: every phase in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.cli import display

SOURCES = [path.read_text(encoding="utf-8") for path in (Path(__file__).parents[2] / "bench").glob("*.py")]
PHASES = sorted({name for text in SOURCES for name in re.findall(r'phase(?:\(|, )"([a-z -]+)"', text)})


def test_phases_are_found() -> None:
    assert {"cool", "idle", "energy", "wait for", "measure", "open"} <= set(PHASES)


@pytest.mark.parametrize("name", PHASES)
def test_every_phase_of_a_sweep_has_its_words(name: str) -> None:
    assert name in display.WORDS


@pytest.mark.parametrize(
    ("name", "detail", "said"),
    [
        ("cool", "to 60 °C", "cool down to 60 °C"),
        ("energy", "decode of smollm2-135m-int8 tg128", "repeat for energy: decode of smollm2-135m-int8 tg128"),
        ("wait for", "bench run, process 12", "wait for bench run, process 12"),
    ],
)
def test_a_line_reads_as_a_sentence(capsys: pytest.CaptureFixture[str], name: str, detail: str, said: str) -> None:
    with display.Lines() as lines:
        lines.phase(name, detail)
    assert capsys.readouterr().err == f"{said}\n"
