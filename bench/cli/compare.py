"""`bench compare`: how one set of records stands to another."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import click

from bench.cli.selection import passed_over
from bench.errors import StoreError, UsageError
from bench.reports.render import plain_text
from bench.results.annotations import Annotations
from bench.results.location import locate_store
from bench.results.reading import records_at
from bench.results.record import Record
from bench.results.selecting import left_out, matches, newest, parse, what_there_is
from bench.results.store import Store


@click.command(short_help="How one set of records stands to another.")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--figure", metavar="KEY", help="Another figure than each workload's rate, as in ttft_s.")
@click.option("--margin", metavar="2%", default="2%", show_default=True, help="Within it both are the same.")
@click.option("--format", "form", type=click.Choice(["terminal", "markdown"]), default="terminal")
@click.option("--results", metavar="DIR", help="The store (else $BENCH_RESULTS).")
@click.option("--json", "as_json", is_flag=True, help="Print one object, and nothing else.")
def compare(a: str, b: str, figure: str | None, margin: str, form: str, results: str | None, as_json: bool) -> None:
    """Tell whether B is better or worse than A, the same, or whether nobody knows yet.

    A and B are key=value,key=value (backend, model, version, sweep, machine, commit, since, latest, …: see
    docs/comparing.md), or a path: a store, the file of a record, or JSON lines.

    bench compare backend=onnx backend=openvino

    bench compare version=1.30 version=1.31,latest=5
    """
    from bench.comparing import compared  # scipy, which may be missing, and no other command needs it
    from bench.reports import verdicts

    allowed, damaged = margin_of(margin), _Damaged()
    sides = [_side(name, text, results, damaged) for name, text in (("A", a), ("B", b))]
    found = compared(*(side.records for side in sides), figure=figure, margin=allowed)
    if not found.rows:
        alone = {"A": found.only_a, "B": found.only_b}
        cause = "; ".join(f"{name} has {_some(each.pool.label for each in of)}" for name, of in alone.items())
        raise UsageError("no series of A has a partner in B", cause=cause)
    asked = [
        verdicts.Asked(words=text, launches=side.launches, left_out=side.left_out)
        for text, side in zip((a, b), sides, strict=True)
    ]
    heading = verdicts.Heading(a=asked[0], b=asked[1], margin=allowed)
    if as_json:
        click.echo(verdicts.render_json(found, heading))
    elif form == "markdown":
        click.echo(verdicts.render_markdown(found, heading), nl=False)
    else:
        click.echo(verdicts.render_terminal(found, heading, color=sys.stdout.isatty()), nl=False)


@dataclass
class _Side:
    """The records of a side that count, and how many do not, by reason."""

    records: list[Record]
    left_out: Counter[str]

    @property
    def launches(self) -> int:
        return len({record.launch_id for record in self.records})


class _Damaged:
    """What cannot be read is told once, though both sides meet it."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, error: StoreError) -> None:
        if str(error) not in self._told:
            passed_over(error)
        self._told.add(str(error))


def _side(name: str, text: str, results: str | None, damaged: _Damaged) -> _Side:
    """The records that `text` selects; UsageError where there is none that counts, with what there is."""
    selection = parse(text, where=name)
    path = selection.path or locate_store(results)
    if selection.path is None and not path.exists():
        raise UsageError("there is no store", where=str(path), remedy="`bench run` makes one, --results names another")
    annotations = Annotations.of(Store(path), damaged) if path.is_dir() else None
    records = list(records_at(path, damaged))
    matching = [record for record in records if matches(record, selection, annotations)]
    if not matching:
        there = plain_text(what_there_is(records, selection, annotations))
        raise UsageError(f"{text!r} matches no record in {path}", where=name, cause=there)
    reasons = {record.record_id: left_out(record, annotations) for record in matching}
    counting = newest((record for record in matching if reasons[record.record_id] is None), selection.latest)
    side = _Side(counting, Counter(why for why in reasons.values() if why))
    if not counting:
        what = f"none of the {len(matching)} records that {text!r} matches counts"
        cause = ", ".join(f"{count} {why}" for why, count in sorted(side.left_out.items()))
        raise UsageError(what, where=name, cause=cause, remedy="`bench table --all` shows them")
    return side


def _some(labels: Iterable[str]) -> str:
    """A few of them, for a message."""
    names = sorted(set(labels))
    return plain_text(", ".join(names[:4]) + (", …" if len(names) > 4 else ""))


def margin_of(text: str) -> float:
    """`2%` or `0.02` as a ratio."""
    number, percent, rest = text.strip().partition("%")
    try:
        margin = float(number) / (100 if percent else 1)
    except ValueError:
        margin = math.nan
    if not 0 < margin <= 1 or rest:
        raise UsageError(f"{text!r} is no margin", where="--margin", remedy="write 2% or 0.02")
    return margin
