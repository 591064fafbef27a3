"""`bench cache`: what lies in the cache, what of it is still sound, and how to be rid of it."""

from __future__ import annotations

import time

import click

from bench.artifacts import cache as stored
from bench.cli.display import display
from bench.errors import PrerequisiteError, UsageError
from bench.units import parse_duration, render_bytes, render_duration


@click.group(short_help="What lies in the cache; how to check and remove it.")
def cache() -> None:
    """Artifacts, references, prepared files and certificates; all of them can be made again."""


@cache.command("ls", short_help="List what is cached.")
def list_entries() -> None:
    """List what is cached, least recently used first: size, age, kind, folder."""
    entries = stored.entries()
    for entry in entries:
        age = render_duration(max(0.0, time.time() - entry.last_used_s))
        click.echo(f"{render_bytes(entry.bytes):>8}  {age:>8} ago  {entry.kind:<11}  {entry.name}")
    click.echo(f"{render_bytes(sum(entry.bytes for entry in entries))} in {stored.root()}", err=True)


@cache.command(short_help="Remove what is cached.")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--older-than", default="0s", metavar="7d", help="Only what was not used for so long (s, m, h, d).")
def prune(names: tuple[str, ...], older_than: str) -> None:
    """Remove what is cached, all or only NAMEs as `bench cache ls` shows them (a unique beginning is enough).

    What another process is writing stays.
    """
    removed = stored.prune(_age(older_than), names)
    for entry in removed:
        click.echo(f"{render_bytes(entry.bytes):>8}  {entry.kind:<11}  {entry.name}")
    click.echo(f"{render_bytes(sum(entry.bytes for entry in removed))} removed from {stored.root()}", err=True)


@cache.command(short_help="Compare all files with their digests.")
def verify() -> int:
    """Read everything that is cached and compare it with its digests; exit code 3 if anything is broken."""
    with display() as watcher:
        watcher.phase("verify", "the cache")
        problems = stored.verify(watcher.progress)
    for problem in problems:
        click.echo(str(problem))
    click.echo(f"{len(problems)} broken of {len(stored.entries())} in {stored.root()}", err=True)
    return PrerequisiteError.exit_code if problems else 0


def _age(text: str) -> float:
    if text in ("0", "0s"):
        return 0.0
    days = text.endswith("d")
    try:
        return parse_duration(text[:-1] if days else text) * (86400 if days else 1)
    except ValueError:
        raise UsageError(f"{text!r} is no duration", where="--older-than", remedy="write 12h or 7d") from None
