"""The table model as Markdown, CSV and terminal text. What comes from records is untrusted and escaped for each."""

from __future__ import annotations

import csv
import html
import io
import re

from rich import box
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table as Grid
from rich.text import Text

from bench.reports.columns import Column
from bench.reports.table import Table

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
_MARKDOWN = re.compile(r"([\\`*_\[\]|~$])")
_FOLDED = 8
_FORMULA = ("=", "+", "-", "@")


def render_markdown(table: Table) -> str:
    """A GitHub table; numbers to the right."""
    lines = [
        [_markdown(column.header) for column in table.columns],
        ["---:" if column.numeric else "---" for column in table.columns],
        *([_markdown(text) for text in table.texts(row)] for row in table.rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def render_csv(table: Table) -> str:
    """Every column in base units, empty where not measured; text that a spreadsheet would execute is quoted by '."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for column in table.all_columns])
    for row in table.rows:
        cells = table.cells(row, everything=True)
        writer.writerow([_csv(cell) if isinstance(cell, str) else "" if cell is None else cell for cell in cells])
    return out.getvalue()


def render_terminal(table: Table, *, width: int = 80, color: bool = False) -> str:
    """`width` columns, more where a number would be cut otherwise; reasons stand below. Plain unless `color`."""
    columns = [column for column in table.columns if column.key != "reason"]
    grid = Grid(
        box=box.SIMPLE_HEAD if color else None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for column in columns:
        justify: JustifyMethod = "right" if column.numeric else "left"
        grid.add_column(Text(column.header), justify=justify, no_wrap=not column.folds, overflow="fold")
    below: list[str] = []
    for row in table.rows:
        style = "" if row.first.proven else "yellow" if row.first.status in ("ok", "unproven") else "red"
        grid.add_row(*(Text(plain_text(column.text(column.of(row)))) for column in columns), style=style)
        if why := next((column.of(row) for column in table.columns if column.key == "reason"), None):
            workload = row.first.identity.workload.name
            below.append(f"{row.model} {row.first.identity.backend} {workload}: {row.first.status}: {why}")
    out = io.StringIO()
    console = Console(
        file=out,
        width=max(width, _needed(columns, table)),
        force_terminal=color,
        no_color=not color,
        highlight=False,
        emoji=False,
        markup=False,
    )
    console.print(grid)
    for line in below:
        console.print(Text(plain_text(line)))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def _needed(columns: list[Column], table: Table) -> int:
    """Terminal columns without which something that must not be folded would be cut."""
    needed = -1  # nothing follows the last column
    for column in columns:
        texts = [column.header, *(plain_text(column.text(column.of(row))) for row in table.rows)]
        widest = max(map(cell_len, texts))
        needed += (min(widest, _FOLDED) if column.folds else widest) + 1
    return needed


def plain_text(text: str) -> str:
    """`text` on one line without control characters, which could recolour or rewrite a terminal."""
    return _CONTROL.sub(" ", text).strip()


def _markdown(text: str) -> str:
    escaped = _MARKDOWN.sub(r"\\\1", html.escape(plain_text(text), quote=False))
    # a bare address would become a link to wherever a foreign record wants
    return re.sub(
        r"(?i)\b(https?|ftp)://|\b(www)\.", lambda m: m[0].replace(":", "&#58;").replace(".", "&#46;"), escaped
    )


def _csv(text: str) -> str:
    """Spreadsheets execute what begins so, with or without spaces before it."""
    flat = plain_text(text)
    return f"'{flat}" if flat.startswith(_FORMULA) else flat
