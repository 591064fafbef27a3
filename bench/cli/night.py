"""One night of `bench nightly`: executed, judged, told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bench.cli.display import Lines, Terminal, display
from bench.cli.night_work import Work
from bench.cli.run import exit_code
from bench.cli.selection import passed_over
from bench.errors import UsageError
from bench.nightly.diary import Diary
from bench.nightly.formats import render_json, render_junit
from bench.nightly.judging import alarm
from bench.nightly.night import Executor, Findings, spend
from bench.nightly.plan import Entry, NightlyPlan
from bench.nightly.summary import render_markdown, render_terminal
from bench.recording import now_utc
from bench.results.annotations import Annotations
from bench.results.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Where findings go besides standard output, which gets lines for people, or one object of JSON."""

    summary: Path | None = None
    junit: Path | None = None
    as_json: bool = False


def spend_night(
    plan: NightlyPlan,
    entries: Sequence[Entry],
    store: Store,
    outputs: Outputs,
    *,
    shared: Mapping[str, Any],
    strict: bool,
) -> int:
    """Execute `entries`, tell what was found, and return the exit code. `shared` is what all journals are told.

    It is that of the alarm, else the most serious of records and errors. UsageError where a file cannot be written.
    """
    for path in (outputs.summary, outputs.junit):
        _write(path, "")  # asked before hours of measuring
    diary = Diary.tonight(store, entries)
    with display() as watcher:
        executor = make_executor(store, diary, watcher, shared)
        annotations = Annotations.of(store, passed_over)
        try:
            findings = spend(
                plan, entries, executor, lambda: store.records(unreadable=passed_over), annotations, now_utc()
            )
        except KeyboardInterrupt:
            watcher.say(f"interrupted; what is measured is kept in {store.root}; the same command goes on")
            raise
    code = alarm(findings.judged, findings.incidents, strict=strict)
    if code is None:
        code = _worst(findings)
    if outputs.as_json:
        click.echo(render_json(findings, code))
    else:
        click.echo(render_terminal(findings), nl=False)
    _write(outputs.summary, render_markdown(findings))
    _write(outputs.junit, render_junit(findings))
    diary.told()
    return code


def make_executor(store: Store, diary: Diary, watcher: Terminal | Lines, shared: Mapping[str, Any]) -> Executor:
    """What executes entries and confirms suspects on this machine."""
    return Work(store=store, diary=diary, watcher=watcher, shared=shared)


def _worst(findings: Findings) -> int:
    """The sweep's own exit code; what is quarantined has none."""
    return max([exit_code(findings.records), *(error.exit_code for _, error in findings.errors)])


def _write(path: Path | None, text: str) -> None:
    """In place: what is named may be a pipe, or a file that a CI system made."""
    if path is None:
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror or error}", where=str(path)) from error
