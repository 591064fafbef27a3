"""Reading the files of this folder."""

from __future__ import annotations

from pathlib import Path

from bench.interchange.llama_bench import Row
from bench.interchange.rows import Scan, read_rows

HERE = Path(__file__).parent
REAL, DERIVED, DAMAGED = HERE / "real", HERE / "derived", HERE / "damaged"
ROWS = sorted(path for folder in (REAL, DERIVED) for path in folder.iterdir() if path.suffix not in (".md", ".sql"))


def rows_of(path: Path) -> list[Row]:
    return list(read_rows(path.read_bytes(), path.name, Scan()))
