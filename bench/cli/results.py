"""`bench results`: whether a store is sound, the union of several, and what people say of records."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast, get_args

import click

from bench.errors import StoreError, UsageError, unknown_name
from bench.reports.render import plain_text
from bench.results.annotations import TARGETS, Annotation, Kind, annotate, stored, targets, utc
from bench.results.ids import new_uuid7
from bench.results.location import locate_store
from bench.results.merging import merged
from bench.results.store import Store
from bench.results.verifying import verified

FOLDERS = ("launches", "sweeps", "annotations")
PLURALS = {"launch": "launches"}
FEWEST_CHARACTERS = 4

_store = click.option("--results", metavar="DIR", help="The store (else $BENCH_RESULTS).")


@click.group(short_help="Stores of records: verify, merge, annotate.")
def results() -> None:
    """Stores of records: whether one is sound, the union of several, what people say of records."""


@results.command(short_help="Read every file and hold them against each other.")
@_store
def verify(results: str | None) -> int:
    """Read everything that the store holds; exit code 6 if anything is damaged or lost.

    What is only worth knowing is printed as a note: unfinished launches, annotations about nothing that is here.
    """
    store = _existing(Path(locate_store(results)))
    found: Counter[bool] = Counter()
    for finding in verified(store):
        found[finding.damage] += 1
        click.echo(plain_text(f"{'damaged' if finding.damage else 'note'}: {finding.problem}"))
    said = f"{found[True]} damaged, {_counted('note', found[False])}, {_counted('launch', len(store.launches()))}"
    click.echo(f"{said} in {store.root}", err=True)
    return StoreError.exit_code if found[True] else 0


@results.command(short_help="Add what other stores have.")
@click.argument("folders", metavar="DIR…", nargs=-1, required=True)
@_store
def merge(folders: tuple[str, ...], results: str | None) -> int:
    """Add to the store the launches, sweeps and annotations of the stores DIR…, whose order does not matter.

    Nothing is overwritten, and merging again adds nothing. What is damaged, or differs from what is here, is told and
    left out: exit code 6.
    """
    into = Store(locate_store(results))
    damaged = 0
    for source in [_existing(Path(folder)) for folder in folders]:
        done = merged(into, source)
        for problem in done.damaged:
            click.echo(plain_text(f"bench: left out: {problem}"), err=True)
        damaged += len(done.damaged)
        added = ", ".join(_counted(kind, count) for kind, count in done.added.items()) or "nothing"
        here = f"; {done.present.total()} here already" if done.present else ""
        click.echo(f"bench: {source.root}: {added} added{here}", err=True)
    return StoreError.exit_code if damaged else 0


def _of(name: str, help: str) -> Callable[[Any], Any]:
    return click.option(f"--{name.partition('_')[0]}", name, metavar="ID", help=help)


@results.command("annotate", short_help="Say something of records: tag, exclude, quarantine, acknowledge.")
@click.argument("what", metavar="WHAT")
@_of("record_id", "Of one record.")
@_of("launch_id", "Of one launch.")
@_of("sweep_id", "Of one sweep.")
@_of("series_key", "Of a series: one case on one device.")
@_of("config_key", "Of the same case on all machines.")
@_of("host_id", "Of everything on one machine.")
@click.option("--reason", help="Why; needed but for a tag.")
@click.option("--author", help="Who says so.")
@click.option("--at", metavar="DATE", help="Since when it holds (else now).")
@click.option("--until", metavar="DATE", help="When a quarantine ends; also 14d.")
@_store
def annotate_command(
    what: str,
    reason: str | None,
    author: str | None,
    at: str | None,
    until: str | None,
    results: str | None,
    **of: str | None,
) -> None:
    """Say something of records; the records stay as they are.

    WHAT is tag=NAME; exclude (a record, launch or sweep that counts nowhere); quarantine (a series, configuration or
    host that alarms nobody until a date); acknowledged (one of these changed for a known reason at that date, and is
    not compared with what was before). An ID is as `bench show` and `bench table --format csv` tell it, or a part of 4
    or more characters of its beginning or end.
    """
    kind, _, tag = what.partition("=")
    if kind not in get_args(Kind):
        raise unknown_name("annotation", kind, get_args(Kind), where="annotate")
    if kind == "quarantine" and not until:
        raise UsageError("a quarantine needs its end, or it is forgotten", where="--until", remedy="give --until 14d")
    store = _existing(Path(locate_store(results)))
    name, value = _target(store, {name: text for name, text in of.items() if text is not None})
    at_utc = _moment("--at", at) if at else _written(datetime.now(timezone.utc))
    ends = _moment("--until", until, utc(at_utc)) if until else None
    said: dict[str, Any] = {name: value, "tag": tag or None, "reason": reason, "author": author, "until_utc": ends}
    try:
        annotation = Annotation(id=new_uuid7(), kind=cast(Kind, kind), at_utc=at_utc, **said)
        annotate(store, annotation)
    except ValueError as error:
        raise UsageError(str(error), where="annotate") from None
    click.echo(f"bench: {_told(annotation)}", err=True)


@results.command("annotations", short_help="What was said of records.")
@_store
def list_annotations(results: str | None) -> None:
    """List all annotations of the store as they were written."""
    store = _existing(Path(locate_store(results)))
    for annotation in stored(store, lambda error: click.echo(plain_text(f"bench: passed over: {error}"), err=True)):
        click.echo(_told(annotation))


def _told(annotation: Annotation) -> str:
    name, value = annotation.target
    ends = f" until {annotation.until_utc}" if annotation.until_utc else ""
    who = f" ({annotation.author})" if annotation.author else ""
    kind = f"tag={annotation.tag}" if annotation.tag else annotation.kind
    text = f"{annotation.at_utc}{ends} {kind} {name.partition('_')[0]} {value[-12:]}: {annotation.reason or ''}{who}"
    return plain_text(text.removesuffix(": "))


def _existing(root: Path) -> Store:
    """UsageError where no store is: a mistyped name must not look like an empty one."""
    try:
        names = {path.name for path in root.iterdir() if not path.name.startswith(".")}
    except OSError as error:
        raise UsageError(f"no store is here: {error.strerror or error}", where=str(root)) from None
    if names and names.isdisjoint(FOLDERS):
        raise UsageError(f"no store is here: it has none of {', '.join(FOLDERS)}", where=str(root))
    return Store(root)


def _target(store: Store, given: dict[str, str]) -> tuple[str, str]:
    """The one thing that is meant, whole: UsageError where that is none or several."""
    flags = [f"--{name.partition('_')[0]}" for name in TARGETS]
    if len(given) != 1:
        raise UsageError("of what? give exactly one", where="annotate", cause=", ".join(flags))
    ((name, text),) = given.items()
    noun, part = name.partition("_")[0], text.lower()
    held = (targets(record)[name] for record in store.records(unreadable=lambda _: None))
    known = {value: value.lower() for value in held if value is not None}
    found = [value for value, lower in known.items() if lower == part]
    if not found and len(part) >= FEWEST_CHARACTERS:
        found = [value for value, lower in known.items() if lower.startswith(part) or lower.endswith(part)]
    if len(found) == 1:
        return name, found[0]
    remedy = "`bench show RECORD` and `bench table --format csv` tell them"
    if found:
        raise UsageError(f"{len(found)} match {text!r}", where=f"--{noun}", remedy=f"give more of it; {remedy}")
    raise UsageError(f"no {noun} {text[:64]!r} in {store.root}", where=f"--{noun}", remedy=remedy)


def _moment(flag: str, text: str, since: datetime | None = None) -> str:
    """A date (its beginning, UTC), a date with time and zone, or, after `since`, so many days."""
    try:
        if since and (days := re.fullmatch(r"(\d{1,4})d", text)):
            return _written(since + timedelta(days=int(days[1])))
        return _written(utc(f"{text}T00:00:00Z" if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else text))
    except (ValueError, OverflowError):
        remedy = "write 2026-11-30 or 2026-11-30T12:00:00Z" + (" or 14d" if since else "")
        raise UsageError(f"{text[:40]!r} is no date", where=flag, remedy=remedy) from None


def _written(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z"


def _counted(noun: str, count: int) -> str:
    return f"{count} {noun if count == 1 else PLURALS.get(noun, noun + 's')}"
