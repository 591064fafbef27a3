"""What parent and worker say to each other: one job in, events out, JSON lines both ways.

Standard library only: the worker executes inside a vendor's image.
"""

from __future__ import annotations

import json
import os
import time
import types
import typing
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar

from bench import errors
from bench.collector.host_memory import Resident
from bench.errors import BenchError
from bench.types import LoadGroup, Prepared

T = TypeVar("T")
Task = Literal["probe", "prepare", "certify", "measure", "export"]
BETWEEN_WORK = ("phase", "sample")
"""Events that are sent while nothing is timed: at the marks of phases, and after every repetition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One task for one fresh worker. `adapter` is `module:Attribute`; paths are absolute.

    prepare and export write into `prepared_folder`; certify and measure read `prepared`. `layers` cuts the model
    (certificates of large models). `reference` is the folder of the float32 reference, None where nothing can be
    compared; export finds a sample there.
    `compare_fed` reads all codes back from the runtime once and compares them with the artifact's. `behind_prefix`: the
    parent started another program, which started the worker; so the worker reads its memory itself, and ends when
    standard input is closed, because no signal may reach it. `energy_s`: sensors of energy are read, which need a phase
    to last so long; None where there are none. `allow_fallback`: the share of the matrix products that may execute
    elsewhere than asked; None: nothing may. `certified_elsewhere`: why the exact certificate is of another place.
    """

    task: Task
    adapter: str
    group: LoadGroup | None = None
    artifact: str | None = None
    layers: int | None = None
    prepared_folder: str | None = None
    prepared: Prepared | None = None
    reference: str | None = None
    compare_fed: bool = False
    behind_prefix: bool = False
    repetitions: int = 5
    budget_s: float | None = None
    energy_s: float | None = None
    allow_fallback: float | None = None
    certified_elsewhere: str | None = None
    seed: int = 0


def encode(value: Any) -> bytes:
    """A dataclass or a mapping as one line of JSON; NaN and infinities are refused."""
    plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    return json.dumps(plain, separators=(",", ":"), allow_nan=False, default=_plain).encode() + b"\n"


def decode(cls: type[T], data: bytes | str) -> T:
    """The inverse of `encode` for the dataclass `cls`; unknown fields are an error."""
    return typing.cast(T, revive(cls, json.loads(data)))


def revive(hint: Any, value: Any) -> Any:
    """`value` from JSON as an instance of the type `hint`: dataclasses, tuples, lists, dicts, optionals, scalars."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else revive(next(a for a in args if a is not type(None)), value)
    if origin is tuple:
        return tuple(revive(args[0], item) for item in value)
    if origin is list:
        return [revive(args[0], item) for item in value]
    if isinstance(hint, type) and is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        known = {f.name for f in fields(hint)}
        if unknown := set(value) - known:
            raise ValueError(f"{hint.__name__} has no field {', '.join(sorted(unknown))}")
        return hint(**{key: revive(hints[key], item) for key, item in value.items()})
    return value


class Events:
    """Writes one event a line, each with one write, so that a killed worker leaves only whole lines or one part.

    `resident`, where it is set, reads the worker's memory: it goes with the events between two pieces of work.
    """

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._last_progress_ns = 0
        self.resident: Callable[[], Resident | None] | None = None

    def __call__(self, event: str, **fields: Any) -> None:
        if self.resident and event in BETWEEN_WORK:
            fields["resident"] = self.resident()
        line = encode({"event": event, "at_ns": time.monotonic_ns(), **fields})
        while line:
            line = line[os.write(self._descriptor, line) :]

    def progress(self, done: int, total: int) -> None:
        """At most ten a second: a builder may report every tensor."""
        now = time.monotonic_ns()
        if done >= total or now - self._last_progress_ns > 10**8:
            self._last_progress_ns = now
            self("progress", done=done, total=total)


def describe(error: BenchError) -> dict[str, Any]:
    """An error as fields of an event; `rebuild` in the parent is the inverse."""
    return {
        "kind": type(error).__name__,
        "what": error.what,
        "where": error.where,
        "cause": error.cause,
        "remedy": error.remedy,
        "phase": getattr(error, "phase", None),
    }


def rebuild(fields: dict[str, Any]) -> errors.BenchError:
    """The inverse of `describe`."""
    kind = getattr(errors, fields["kind"])
    told = {key: fields.get(key) for key in ("where", "cause", "remedy")}
    if issubclass(kind, errors.CaseError):
        told["phase"] = fields.get("phase")
    error: errors.BenchError = kind(fields["what"], **told)
    return error


def _plain(value: Any) -> Any:
    """dataclasses nested in mappings, and numpy scalars, for json.dumps."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be sent between processes")
