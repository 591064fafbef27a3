"""Which interpreter executes the workers of a backend: `--python`, the host file's, this one, or a managed one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench import registry
from bench.api import Backend
from bench.environments.interpreter import Interpreter, Origin
from bench.environments.managed import managed_interpreter
from bench.environments.probing import probe
from bench.errors import PrerequisiteError
from bench.types import Availability

NAMED: tuple[Origin, ...] = ("--python", "host file")
"""Interpreters that somebody named: there the runtime is somebody's own."""
PYTHON_REMEDY = "give --python a Python 3.10 or newer that has numpy and the runtime"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An interpreter, and what the backend finds in it."""

    target: str
    interpreter: Interpreter
    availability: Availability


def find(
    backend: Backend,
    target: str,
    *,
    python: str | None = None,
    host: Mapping[str, Interpreter] | None = None,
    provider: str | None = None,
) -> Found:
    """The first interpreter where the backend has its runtime and, where one is asked for, its `provider`.

    `python` (`--python`) decides alone, then the entry of the `host` file; else it is this interpreter, else the
    backend's managed environment. Where none has it, the last that was tried. Raises PrerequisiteError where one
    cannot execute a worker.
    """
    tried: list[Found] = []
    for interpreter in _candidates(backend.name, target, python, host or {}):
        tried.append(Found(target=target, interpreter=interpreter, availability=probe(target, interpreter)))
        found = tried[-1].availability
        if found.ok and (provider is None or not found.providers or provider in found.providers):
            return tried[-1]
    return next((found for found in tried if found.availability.ok), tried[-1])


def absent(found: Found, backend: Backend) -> PrerequisiteError:
    """The error for a runtime that is not there: why, where, and the commands that bring it."""
    interpreter = found.interpreter
    named = interpreter.origin in NAMED
    return PrerequisiteError(
        found.availability.reason or "not available",
        where=f"backend {backend.name}" + (f" in {interpreter.label} ({interpreter.origin})" if named else ""),
        remedy=remedy(found, backend),
    )


def remedy(found: Found, backend: Backend) -> str | None:
    """The adapter's own remedy and, where nobody named the interpreter, the managed environment."""
    name = backend.name if backend.name in registry.names() else found.target
    own, setup = found.availability.remedy, f"bench setup {name}"
    if found.interpreter.origin in NAMED or not backend.requirements(None).packages or setup in (own or ""):
        return own
    return f"{own}, or {setup}" if own else setup


def _candidates(name: str, target: str, python: str | None, host: Mapping[str, Interpreter]) -> Iterator[Interpreter]:
    if python is not None:
        yield Interpreter(python=python, origin="--python", remedy=PYTHON_REMEDY)
    elif (entry := host.get(name) or host.get(target)) is not None:
        yield entry
    else:
        yield Interpreter()
        if (managed := managed_interpreter(name)) is not None:
            yield managed
