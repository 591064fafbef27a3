"""Everything that can go wrong and is not a bug.

BenchError
├─ UsageError          2   bad flag, unknown model or backend, bad TOML
├─ PrerequisiteError   3   runtime, driver, permission, disk or memory missing
├─ CaseError           4   prepare, open or a step failed; recorded, the sweep goes on
├─ InvalidMeasurement  5   gate, placement, throttling, gap; recorded as invalid
├─ StoreError          6   newer schema, corrupt record
└─ BusyError          75   another process is at it

Anything else that escapes is a bug: a traceback and exit code 70. 130 is an interrupt. `bench nightly` also ends with
10 (a confirmed regression) and, where it is strict, with 11 (a suspected one) and 12 (too little data).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import ClassVar

EXIT_REGRESSION = 10
EXIT_SUSPECTED = 11
EXIT_TOO_LITTLE = 12
EXIT_BUG = 70
EXIT_BUSY = 75
EXIT_INTERRUPTED = 130


class BenchError(Exception):
    """One line for the user: what, where, the likely cause, the next command.

    `what` says what is wrong, `where` the file, flag or case, `cause` the likely reason, `remedy` what to type next.
    """

    exit_code: ClassVar[int] = EXIT_BUG

    def __init__(self, what: str, *, where: str | None = None, cause: str | None = None, remedy: str | None = None):
        self.what, self.where, self.cause, self.remedy = what, where, cause, remedy
        super().__init__(self.what)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.cause:
            text += f" ({self.cause})"
        if self.remedy:
            text += f"; {self.remedy}"
        return text


class UsageError(BenchError):
    """The command line or an input file asks for something that does not exist."""

    exit_code = 2


class PrerequisiteError(BenchError):
    """This machine lacks something; `remedy` is what to install or execute."""

    exit_code = 3


class CaseError(BenchError):
    """One case could not be executed; it is recorded as failed and the sweep goes on.

    `phase` is where it happened: prepare, certify, open, gate, measure or close.
    """

    exit_code = 4

    def __init__(
        self,
        what: str,
        *,
        phase: str | None = None,
        where: str | None = None,
        cause: str | None = None,
        remedy: str | None = None,
    ):
        super().__init__(what, where=where, cause=cause, remedy=remedy)
        self.phase = phase


class InvalidMeasurement(BenchError):
    """It ran, but the numbers must not be believed; it is recorded as invalid."""

    exit_code = 5


class StoreError(BenchError):
    """The results store cannot be read or written."""

    exit_code = 6


class BusyError(BenchError):
    """Another process is at work on the same thing; it is left alone."""

    exit_code = EXIT_BUSY


@contextmanager
def missing_imports(what: str, *, where: str, remedy: str) -> Iterator[None]:
    """An ImportError inside is a PrerequisiteError: `what` is missing or broken, and `remedy` installs it."""
    try:
        yield
    except ImportError as error:
        raise PrerequisiteError(f"{what} is missing or broken", where=where, cause=str(error), remedy=remedy) from error


def unknown_name(
    kind: str, name: str, known: Iterable[str], *, where: str | None = None, remedy: str | None = None
) -> UsageError:
    """The error for a name that is none of `known`: it suggests the nearest, or lists all where none is near."""
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        cause = f"nearest: {', '.join(near)}"
    else:
        cause = f"known: {', '.join(names)}" if names else f"there is no {kind} at all"
    return UsageError(f"unknown {kind} {name!r}", where=where, cause=cause, remedy=remedy)
