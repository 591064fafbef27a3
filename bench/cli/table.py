"""`bench table`: the records of the store as a table, on standard output or in the blocks of a page."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from bench.cli.selection import found, none_in, selected, selectors
from bench.cli.writing import write_whole
from bench.errors import UsageError
from bench.reports.blocks import filled, find_blocks
from bench.reports.html import render_html
from bench.reports.render import plain_text, render_csv, render_markdown, render_terminal
from bench.reports.summary import render_json
from bench.reports.table import Table, build_table
from bench.results.location import locate_store
from bench.results.record import Record
from bench.results.store import Store

MARKDOWN = "markdown"
FORMATS: dict[str, Callable[[Table], str]] = {MARKDOWN: render_markdown, "csv": render_csv, "html": render_html}
NOT_OF_A_MARKER = ("results", "update")
LARGEST_PAGE_BYTES = 1 << 24


@click.command(short_help="The records of the store as a table.")
@selectors
@click.option("--format", "form", type=click.Choice(["terminal", *FORMATS, "json"]), help="Else terminal.")
@click.option("--update", metavar="FILE.md", type=click.Path(path_type=Path), help="Refresh the tables in this page.")
def table(results: str | None, form: str | None, update: Path | None, **asked: Any) -> None:
    """Show the store's records, those of the newest sweep of each series.

    With --update nothing is printed: what lies between <!-- bench table --> and <!-- end of bench table --> is replaced
    in FILE.md, every block by the options in its own first marker, or by those of the command where it has none.
    """
    store = Store(locate_store(results))
    if update:
        _update(update, store, form, asked)
        return
    records = selected(store, **asked)
    if not records:
        return
    if form == "json":
        for record in records:
            click.echo(render_json(record))
    elif form in FORMATS:
        click.echo(FORMATS[form](_dated(records)), nl=False)
    else:
        click.echo(render_terminal(_dated(records), color=sys.stdout.isatty()), nl=False)


def _dated(records: list[Record]) -> Table:
    return build_table(records, datetime.now(timezone.utc).date())


def _update(path: Path, store: Store, form: str | None, asked: dict[str, Any]) -> None:
    """All blocks of the page or, where one of them cannot be made, none."""
    page = _read(path)
    blocks = find_blocks(page, str(path))
    tables = []
    for block in blocks:
        where = f"{path}:{block.line}"
        wanted = _options(block.asked, where) if block.asked else {"form": form, **asked}
        if wanted.pop("form") not in (None, MARKDOWN):
            raise UsageError("a page takes Markdown", where=where, remedy="leave --format out")
        try:
            records = found(store, **wanted)
        except UsageError as error:
            raise UsageError(plain_text(str(error)), where=where) from error
        if not records:
            raise UsageError(none_in(store), where=where, remedy="the page is as it was")
        tables.append(render_markdown(_dated(records)))
    data = filled(page, blocks, tables)
    if data != page:
        write_whole(path, data)
    said = "is up to date" if data == page else f"{len(blocks)} table{'s' * (len(blocks) != 1)} refreshed"
    click.echo(f"bench: {path}: {said}", err=True)


def _read(path: Path) -> bytes:
    try:
        size_bytes = path.stat().st_size
        if not path.is_file() or size_bytes > LARGEST_PAGE_BYTES:
            raise UsageError(f"is no file of at most {LARGEST_PAGE_BYTES >> 20} MiB", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", where=str(path)) from error


def _options(asked: str, where: str) -> dict[str, Any]:
    """A marker's own options, by the parser of this command; whoever wrote it may not name files or ask for more."""
    known = [option for option in table.params if option.name not in NOT_OF_A_MARKER]
    command = click.Command("bench table", params=known, add_help_option=False)
    try:
        return command.make_context("bench table", shlex.split(asked)).params
    except (click.ClickException, ValueError) as error:
        said = error.format_message() if isinstance(error, click.ClickException) else str(error)
        what = " ".join(plain_text(said).split()).rstrip(".")
        raise UsageError(
            what, where=where, cause="the marker's options", remedy="selectors of `bench table` alone are taken"
        ) from error
