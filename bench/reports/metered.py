"""What sensors told about a row's records: joules per token, watts, memory, throttling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from bench.reports.row import Row
from bench.results.metered import EnergyUse
from bench.results.record import Record
from bench.results.schema import DeviceRef

WALL, HOST, CPU = "wall", "host", "cpu"


def j_per_token(row: Row, phase: str) -> float | None:
    """Gross energy of the devices that computed, all that is counted of them, per token of a phase; over launches."""
    return _mean(_j_per_token(_counted(record), phase) for record in row.records)


def wall_j_per_token(row: Row, phase: str) -> float | None:
    """The same of the whole machine, by an external meter."""
    return _mean(_j_per_token(_wall(record), phase) for record in row.records)


def mean_w(row: Row) -> float | None:
    """Mean power of the devices that computed, over a timed repetition of the case; over launches.

    Each phase weighs what it took when it was timed: for sensors a short one is repeated much longer than the others.
    """
    return _mean(_mean_w(record) for record in row.records)


def memory_bytes(row: Row) -> float | None:
    """The most that a launch needed on the devices that computed: what the runtime allocated, else what it grew by.

    On processors the worker's resident memory, with the pages of files: a runtime that maps its model holds it there.
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
    """None unless every part has a number in every phase that was timed."""
    timed_s = {
        "prefill": sum(sample.prefill_s or 0.0 for sample in record.samples),
        "decode": sum(sum(sample.step_s) for sample in record.samples),
    }
    joules = 0.0
    for phase, seconds in timed_s.items():
        watts = [use.mean_w for use in _counted(record) if use.phase == phase]
        known = [each for each in watts if each is not None]
        if seconds and (not watts or len(known) != len(watts)):
            return None
        joules += sum(known) * seconds
    return joules / sum(timed_s.values()) if any(timed_s.values()) else None


def _memory_bytes(record: Record) -> float | None:
    """Of the host only where nothing but processors computed: what a card holds is not seen there."""
    allocated = [each.allocator_peak_bytes for each in record.memory if each.allocator_peak_bytes is not None]
    if allocated:
        return sum(allocated)
    cards = [device for device in record.identity.devices if device.kind != CPU]
    if not cards:
        return _host_bytes(record) if record.identity.devices else None
    by_runtime = [each.device_delta_bytes for each in record.memory if each.device not in (HOST, CPU)]
    return _all_grown(_grown_bytes(cards, record)) or _all_grown(by_runtime)


def _host_bytes(record: Record) -> int | None:
    host = next((each for each in record.memory if each.device == HOST), None)
    known = (host.anon_peak_bytes, host.file_peak_bytes) if host else ()
    return sum(each or 0 for each in known) if any(each is not None for each in known) else None


def _grown_bytes(cards: Sequence[DeviceRef], record: Record) -> list[float | None]:
    """By how much memory in use on each card grew, as sensors name them: by PCI address, else those that were counted.

    Nothing where they are not as many as computed.
    """
    names = {f"pci:{card.pci}" for card in cards if card.pci}
    if len(names) < len(cards):
        names = {use.device for use in _counted(record) if not use.device.startswith(CPU)}
    told = [each for each in record.conditions if each.device in names]
    grown = [_difference(each.memory_highest_bytes, each.memory_before_bytes) for each in told]
    return grown if len(grown) == len(cards) else []


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _all_grown(grown: Sequence[float | None]) -> float | None:
    """Their sum; None unless each is known and above 0, for others on a card may have let go of more."""
    known = [each for each in grown if each is not None and each > 0]
    return sum(known) if known and len(known) == len(grown) else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
