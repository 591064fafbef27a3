"""What sensors told about a row's records: joules per token, watts, memory, throttling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from bench.reports.row import Row
from bench.results.metered import EnergyUse
from bench.results.record import Record

WALL = "wall"


def j_per_token(row: Row, phase: str) -> float | None:
    """Gross energy of the devices that computed, all that is counted of them, per token of a phase; over launches."""
    return _mean(_j_per_token(_counted(record), phase) for record in row.records)


def wall_j_per_token(row: Row, phase: str) -> float | None:
    """The same of the whole machine, by an external meter."""
    return _mean(_j_per_token(_wall(record), phase) for record in row.records)


def mean_w(row: Row) -> float | None:
    """Mean power of the devices that computed, over all phases of the case; over launches."""
    return _mean(_mean_w(record) for record in row.records)


def memory_bytes(row: Row) -> float | None:
    """The most that a launch needed: what the runtime allocated on its device, else the worker's resident memory.

    With the pages of files, for a runtime that maps its model holds it there.
    """
    found = [peak for record in row.records if (peak := _memory_bytes(record)) is not None]
    return max(found, default=None)


def throttled(row: Row) -> str | None:
    """Reasons for which a device was slowed down while the case was measured."""
    reasons = {reason for record in row.records for condition in record.conditions for reason in condition.slowed}
    return " ".join(sorted(reasons)) or None


def _counted(record: Record) -> list[EnergyUse]:
    return [use for use in record.energy.uses if use.counted] if record.energy else []


def whose_energy(row: Row) -> str | None:
    """What the weights were while joules were read, where they were not a model's own."""
    if row.first.identity.weights.source != "synthetic":
        return None
    read = any(use.joules is not None for record in row.records if record.energy for use in record.energy.uses)
    return "of synthetic weights, which say little about a trained model's" if read else None


def _wall(record: Record) -> list[EnergyUse]:
    return [use for use in record.energy.uses if use.part == WALL] if record.energy else []


def _j_per_token(of_parts: Sequence[EnergyUse], phase: str) -> float | None:
    """None unless every part has a number: a sum that lacks one would flatter."""
    uses = [use for use in of_parts if use.phase == phase]
    joules = [use.joules for use in uses if use.joules is not None and use.tokens]
    tokens = uses[0].tokens if uses else None
    return sum(joules) / tokens if tokens and len(joules) == len(uses) else None


def _mean_w(record: Record) -> float | None:
    phases = {use.phase: use.seconds for use in _counted(record)}
    joules = [use.joules for use in _counted(record)]
    known = [each for each in joules if each is not None]
    seconds = sum(each or 0.0 for each in phases.values())
    return sum(known) / seconds if seconds and known and len(known) == len(joules) else None


def _memory_bytes(record: Record) -> int | None:
    allocated = [each.allocator_peak_bytes for each in record.memory if each.allocator_peak_bytes is not None]
    if allocated:
        return sum(allocated)
    host = next((each for each in record.memory if each.device == "host"), None)
    known = (host.anon_peak_bytes, host.file_peak_bytes) if host else ()
    return sum(each or 0 for each in known) if any(each is not None for each in known) else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
