"""The table model as one HTML page that asks for nothing: no script, no font, no image, no address."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from bench import __version__
from bench.reports.column import Column
from bench.reports.published_columns import RELATIVE
from bench.reports.render import below, page_columns, plain_text
from bench.reports.row import Row
from bench.reports.table import Table

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #4a90d9; --quiet: #8888881a }
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em }
.wide { overflow-x: auto }
table { border-collapse: collapse }
th, td { padding: .25em .7em; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line) }
tbody th { padding-top: 1.2em }
.number { text-align: right; font-variant-numeric: tabular-nums }
.unranked td { opacity: .7 }
.bar { display: inline-block; width: 6em; height: .7em; margin-right: .5em; background: var(--quiet) }
.bar span { display: block; height: 100%; background: var(--bar) }
dt { font-weight: bold; float: left; clear: left; width: 9em }
dd { margin-left: 10em }
"""


def render_html(table: Table) -> str:
    """A whole page: the groups under their headings, warnings and reasons, what each column means."""
    return "".join(f"{line}\n" for line in _page(table))


def _page(table: Table) -> Iterator[str]:
    columns = page_columns(table)
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Evenbench</title>'
    yield '<meta name="viewport" content="width=device-width">'
    # if something foreign ever got past the escapes, it still may not load or execute anything
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield f'<style>{_STYLE}</style>\n</head>\n<body>\n<div class="wide">\n<table>\n<thead>'
    yield f"<tr>{''.join(_header(column) for column in columns)}</tr>\n</thead>"
    for group in table.groups:
        yield "<tbody>"
        if table.headed:
            yield f'<tr><th colspan="{len(columns)}" scope="rowgroup">{_text(group[0].group)}</th></tr>'
        yield from (_row(columns, row) for row in group)
        yield "</tbody>"
    yield "</table>\n</div>"
    if said := list(below(table)):
        yield "<ul>"
        yield from (f"<li><b>{_text(who)}:</b> {_text(text)}</li>" for who, text in said)
        yield "</ul>"
    yield "<dl>"
    yield from (f"<dt>{_text(column.header)}</dt><dd>{_text(column.meaning)}</dd>" for column in columns)
    yield f"</dl>\n<p>Evenbench {_text(__version__)}</p>\n</body>\n</html>"


def _header(column: Column) -> str:
    return f'<th scope="col"{_number(column)}>{_text(column.header)}</th>'


def _row(columns: list[Column], row: Row) -> str:
    unranked = "" if row.first.proven else ' class="unranked"'
    return f"<tr{unranked}>{''.join(_cell(column, row) for column in columns)}</tr>"


def _cell(column: Column, row: Row) -> str:
    if column is RELATIVE and row.relative_ratio is not None:
        share = f"{row.relative_ratio * 100:.0f}"
        return f'<td><span class="bar"><span style="width:{share}%"></span></span>{share} %</td>'
    return f"<td{_number(column)}>{_text(column.read(row))}</td>"


def _number(column: Column) -> str:
    return ' class="number"' if column.numeric else ""


def _text(text: str) -> str:
    return escape(plain_text(text))
