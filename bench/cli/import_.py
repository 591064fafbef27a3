"""`bench import`: results of another tool as records, each file whole or not at all."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import click

from bench.errors import UsageError, unknown_name
from bench.interchange.checks import digest
from bench.interchange.claims import claimed_record
from bench.interchange.llama_bench import FORMAT
from bench.interchange.rows import Scan, read_rows
from bench.interchange.text import MOST_BYTES
from bench.results.ids import new_uuid7
from bench.results.location import locate_store
from bench.results.store import Store


@click.command("import", short_help="Results of another tool, as claims beside the measured ones.")
@click.argument("form", metavar="FORMAT")
@click.argument("files", metavar="FILE…", nargs=-1, required=True)
@click.option("--results", metavar="DIR", help="The store (else $BENCH_RESULTS).")
def import_command(form: str, files: tuple[str, ...], results: str | None) -> None:
    """Import FILE… (`-`: standard input) of another tool. FORMAT is llama-bench: JSON, JSONL or CSV.

    A file is imported whole or not at all; rows that the store has are left out. What is imported is a claim: it is
    shown beside what was measured, never ranked among it.
    """
    if form != FORMAT:
        raise unknown_name("format", form, [FORMAT], where="import")
    store = Store(locate_store(results))
    known = {record.source.row_digest for record in store.records(unreadable=lambda _: None) if record.source}
    for file in files:
        name = "standard input" if file == "-" else file
        done = _import_file(_read(file, name), name, store, known)
        click.echo(f"bench: {name}: {done.told()}", err=True)


@dataclass
class _Imported:
    launch_id: str
    scan: Scan
    kept: int = 0

    def told(self) -> str:
        """What became of the file, in one line."""
        again, scan = self.scan.rows - self.kept, self.scan
        said = [f"{_rows(self.kept)} imported"] if self.kept or not again else ["already imported"]
        if self.kept and again:
            said.append(f"{_rows(again)} already imported")
        if scan.cut_line is not None:
            said.append(f"the file ends early, in line {scan.cut_line}: what was incomplete there is left out")
        if scan.skipped_lines:
            said.append(f"{scan.skipped_lines} lines of other text passed over")
        return "; ".join(said) + (f" (launch {self.launch_id})" if self.kept else "")


def _rows(count: int) -> str:
    return f"{count} row" + "s" * (count != 1)


def _read(file: str, name: str) -> bytes:
    """At most one byte more than is taken, so that a file of any size costs no more memory than the largest."""
    try:
        if file == "-":
            return sys.stdin.buffer.read(MOST_BYTES + 1)
        with Path(file).open("rb") as opened:
            return opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", where=name) from error


def _import_file(data: bytes, name: str, store: Store, known: set[str]) -> _Imported:
    """All rows that are new in one launch, committed together; an error leaves nothing behind."""
    done = _Imported(launch_id=new_uuid7(), scan=Scan())
    found: set[str] = set()
    draft = None
    try:
        for row in read_rows(data, name, done.scan):
            if (told := digest(row)) in known or told in found:
                continue
            found.add(told)
            draft = draft or store.launch(done.launch_id)
            draft.add(claimed_record(row, done.launch_id, name))
    except BaseException:
        if draft is not None:
            draft.discard()
        raise
    if draft is not None:
        draft.commit()
    known |= found
    done.kept = len(found)
    return done
