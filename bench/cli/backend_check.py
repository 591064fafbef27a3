"""`bench backend-check`: put an adapter through the conformance suite."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from bench.cli.asked import options_told
from bench.conformance.subject import Subject
from bench.conformance.suite import CHECKS, judge
from bench.errors import CaseError


@click.command("backend-check")
@click.argument("name", metavar="NAME")
@click.option("--provider", metavar="EP", help="Execution provider, of a runtime that has any.")
@click.option("--set", "options", metavar="KEY=VALUE", multiple=True, help="An option of the adapter; repeatable.")
def backend_check(name: str, provider: str | None, options: tuple[str, ...]) -> int:
    """Check an adapter against its contract.

    One line a check: pass, gap with the declared reason, or FAIL. NAME is a registered backend or module:Attribute.
    Nothing is kept; no network, a few minutes.

    bench backend-check onnx
    """
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="bench-check-") as scratch:
        subject = Subject(name, Path(scratch), options_told(options), provider)
        for check in CHECKS:
            if not check.applies(subject.backend):
                continue
            with _errors_to(Path(scratch, "runtime.log")):
                outcome = judge(check, subject)
            counts[outcome.verdict] += 1
            note = f": {outcome.message}" if outcome.message else ""
            click.echo(f"{outcome.verdict:4}  {check.name}{note}")
            if outcome.verdict == "FAIL":
                click.echo(f"      demanded: {check.contract}")
    click.echo(f"{counts['pass']} passed, {counts['gap']} gaps, {counts['FAIL']} failed")
    return CaseError.exit_code if counts["FAIL"] else 0


@contextmanager
def _errors_to(log: Path) -> Iterator[None]:
    """Standard error of this process in `log`: runtimes complain there about what checks provoke."""
    kept = os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
