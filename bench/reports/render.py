"""The table model as Markdown, CSV and terminal text. What comes from records is untrusted and escaped for each."""

from __future__ import annotations

import csv
import html
import io
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, JustifyMethod, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from bench.reports.column import Column
from bench.reports.row import Row
from bench.reports.table import Table

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
_MARKDOWN = re.compile(r"([\\`*_\[\]|~$])")
_PARTS = re.compile(r"[^-+/=,\s]*(?:[-+/=,\s]|$)")
_LONGEST_PART = 16
_FORMULA = ("=", "+", "-", "@")


def render_markdown(table: Table) -> str:
    """A GitHub table, numbers to the right, a row in bold above each group; warnings and reasons stand below."""
    columns = page_columns(table)
    lines = [
        [markdown_text(column.header) for column in columns],
        ["---:" if column.numeric else "---" for column in columns],
    ]
    for group in table.groups:
        if table.headed:
            lines.append([f"**{markdown_text(group[0].group)}**", *[""] * (len(columns) - 1)])
        lines += [[markdown_text(column.read(row)) for column in columns] for row in group]
    said = "".join(f"- **{markdown_text(who)}:** {markdown_text(text)}\n" for who, text in below(table))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + (f"\n{said}" if said else "")


def render_csv(table: Table) -> str:
    """Every column in base units, empty where not measured; text that a spreadsheet would execute is quoted by '."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for column in table.all_columns])
    for row in table.rows:
        cells = table.cells(row)
        writer.writerow([_csv(cell) if isinstance(cell, str) else "" if cell is None else cell for cell in cells])
    return out.getvalue()


def render_terminal(table: Table, *, width: int = 80, color: bool = False) -> str:
    """`width` columns, more where a number would be cut otherwise; warnings and reasons stand below.

    Groups are indented below their headings. Plain unless `color`, which changes no position.
    """
    columns = [column for column in table.columns if not column.below]
    cells = [[column.header, *(plain_text(column.read(row)) for row in table.rows)] for column in columns]
    indent = "  " if table.headed else ""
    widths = _widths(columns, cells, width - len(indent))
    folded = ([_folded(text, most) for text in texts] for texts, most in zip(cells, widths, strict=True))
    header, *lines = zip(*folded, strict=True)
    shown = [indent + line for line in _aligned(columns, widths, [(header, "bold")], color)]
    rest = iter(lines)
    for group in table.groups:
        if table.headed:
            name = "\n".join(_wrapped(plain_text(group[0].group), width))
            shown += _printed(Text(name, style="bold"), color)
        styled = [(next(rest), _style(row)) for row in group]
        shown += [indent + line for line in _aligned(columns, widths, styled, color)]
    for who, text in below(table):
        shown += _wrapped(plain_text(f"{who}: {text}"), width)
    return "".join(f"{line.rstrip()}\n" for line in shown)


def _aligned(
    columns: Sequence[Column], widths: Sequence[int], lines: Sequence[tuple[Sequence[str], str]], color: bool
) -> list[str]:
    """Lines of cells under one another, each in its style."""
    grid = Grid(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    for column, most in zip(columns, widths, strict=True):
        justify: JustifyMethod = "right" if column.numeric else "left"
        grid.add_column(justify=justify, width=most, overflow="fold")
    for texts, style in lines:
        grid.add_row(*map(Text, texts), style=style)
    return _printed(grid, color)


def _printed(what: RenderableType, color: bool) -> list[str]:
    out = io.StringIO()
    console = Console(
        file=out,
        width=sys.maxsize,
        force_terminal=color,
        no_color=not color,
        highlight=False,
        emoji=False,
        markup=False,
    )
    console.print(what)
    return out.getvalue().splitlines()


def _style(row: Row) -> str:
    return "" if row.first.proven else "yellow" if row.first.status in ("ok", "unproven") else "red"


def _widths(columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int) -> list[int]:
    """Of each column: what its text takes. Where all do not fit, those that fold give way, the widest first."""
    widths = [max(map(cell_len, texts)) for texts in cells]
    least = [
        max(min(cell_len(part), _LONGEST_PART) for text in texts for part in _PARTS.findall(text))
        if column.folds
        else most
        for column, texts, most in zip(columns, cells, widths, strict=True)
    ]
    while sum(widths) + len(widths) - 1 > width and widths != least:
        widths[max(range(len(widths)), key=lambda i: (widths[i] > least[i], widths[i]))] -= 1
    return widths


def _folded(text: str, width: int) -> str:
    """`text` in lines of `width`, broken behind `-` and its like; a part that is longer is broken by whoever prints."""
    lines = [""]
    for part in _PARTS.findall(text):
        if lines[-1] and cell_len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines broken between words only: what is to be typed or opened stays whole."""
    return textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def page_columns(table: Table) -> list[Column]:
    """Those of a page; what a column says below the table is not among them."""
    return [column for column in table.published if not column.below]


def below(table: Table) -> Iterator[tuple[str, str]]:
    """Warnings and reasons, each once, behind all rows that it holds for; not escaped."""
    said: dict[str, dict[str, list[str]]] = {}
    for column in (column for column in table.columns if column.below):
        for row in table.rows:
            if (text := column.of(row)) is None:
                continue
            kind = row.first.status if column.key == "reason" else "warning"
            said_of = said.setdefault(f"{kind}: {text}", {})
            workloads = said_of.setdefault(f"{row.model} {row.first.identity.backend}", [])
            if row.first.identity.workload.name not in workloads:
                workloads.append(row.first.identity.workload.name)
    for text, rows in said.items():
        yield "; ".join(f"{name} {', '.join(workloads)}" for name, workloads in rows.items()), text


def plain_text(text: str) -> str:
    """`text` on one line without control characters, which could recolour or rewrite a terminal."""
    return _CONTROL.sub(" ", text).strip()


def markdown_text(text: str) -> str:
    escaped = _MARKDOWN.sub(r"\\\1", html.escape(plain_text(text), quote=False))
    # a bare address would become a link to wherever a foreign record wants
    return re.sub(
        r"(?i)\b(https?|ftp)://|\b(www)\.", lambda m: m[0].replace(":", "&#58;").replace(".", "&#46;"), escaped
    )


def _csv(text: str) -> str:
    """Spreadsheets execute what begins so, with or without spaces before it."""
    flat = plain_text(text)
    return f"'{flat}" if flat.startswith(_FORMULA) else flat
