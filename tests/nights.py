"""Nights of records for tests: launches at a rate, on a day, in a sweep; and an executor that does as it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.nightly.night import Suspect
from bench.nightly.plan import Entry
from bench.plan import Request
from bench.results.record import Record
from bench.results.schema import Covariates, Info
from tests.records import identity, record, samples

START_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z."""


def uuid7_on(day: float, number: int = 0) -> str:
    """The UUIDv7 that something got on a day since 2026-01-01; greater numbers of one moment sort later."""
    value = int(START_MS + day * 86_400_000) << 80 | 0x7 << 76 | 0b10 << 62 | number
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_launches = iter(range(1, 1 << 60))


def launch(day: float, rate: float, *, sweep: str | None = None, status: Any = "ok", **changed: Any) -> Record:
    """One launch that decoded `rate` tokens a second; `changed` are of its identity, covariates, info or record."""
    who = {name: changed.pop(name) for name in ("backend", "model", "host_id", "options") if name in changed}
    info = {name: changed.pop(name) for name in ("interpreter", "case_key") if name in changed}
    covariates = {name: changed.pop(name) for name in ("runtime", "kernel", "code") if name in changed}
    number = next(_launches)
    told = Info(sweep_id=sweep or uuid7_on(day), started_at_utc=f"day {day}", **info)
    return record(
        status=status,
        who=identity(**who),
        launch_id=uuid7_on(day, number),
        info=told,
        covariates=Covariates(**covariates) if covariates else Covariates(runtime={"onnxruntime": "1.31.0"}),
        **{"samples": samples(step_s=1 / rate), **changed},
    )


def nights(rates: Sequence[float], *, first: int = 0, **changed: Any) -> list[Record]:
    """A launch every day."""
    return [launch(day, rate, **changed) for day, rate in enumerate(rates, first)]


def entry(number: int = 1, backend: str = "onnx") -> Entry:
    request = Request(backends=(backend,), models=("smollm2-135m-int8",), workloads=("tg4",))
    return Entry(number=number, where=f"plan.toml: [[case]] {number}", request=request)


@dataclass(kw_only=True)
class Said:
    """An annotation, as far as nights look at it."""

    id: str = "a1"
    reason: str | None = None
    author: str | None = None
    until_utc: str | None = None


Which = Callable[[Record], bool]


@dataclass(kw_only=True)
class Annotations:
    """What was said, as functions of records."""

    out: Which = lambda record: False
    quarantine: Callable[[Record, str | None], Said | None] = lambda record, at_utc: None
    accepted: Callable[[Record], Said | None] = lambda record: None

    def excluded(self, record: Record) -> Said | None:
        return Said() if self.out(record) else None

    def quarantined(self, record: Record, at_utc: str | None = None) -> Said | None:
        return self.quarantine(record, at_utc)

    def acknowledged(self, record: Record) -> Said | None:
        return self.accepted(record)


NOTHING = Annotations()


@dataclass
class Scripted:
    """An executor: `measured` are the records of each entry, or what it raises; `pairs` the answer to a suspect."""

    measured: Iterable[Record] | Mapping[int, Sequence[Record] | Exception]
    pairs: Callable[[Suspect], list[float]] = lambda suspect: [1.0] * suspect.pairs
    asked: list[Suspect] = field(default_factory=list)

    def execute(self, entry: Entry) -> list[Record]:
        answer = self.measured[entry.number] if isinstance(self.measured, Mapping) else list(self.measured)
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    def confirm(self, series: Suspect) -> list[float]:
        self.asked.append(series)
        return self.pairs(series)
