"""One record in full, for `bench show`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bench.attest import elsewhere_share, executed_elsewhere
from bench.reports.metrics import METRICS, PERCENTILE_FLOORS
from bench.reports.render import plain_text
from bench.reports.summary import Value, summarize
from bench.results.record import Record
from bench.units import render_bytes, render_duration, render_number, render_share


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and its lines of (label, text)."""

    title: str
    lines: tuple[tuple[str, str], ...]


def record_details(record: Record) -> list[Section]:
    """Everything that the record says, in the order in which a doubter asks. Empty sections are left out."""
    raw = record.raw()
    sections = [
        Section("record", tuple(_head(record))),
        Section("figures", tuple(_figures(record))),
        Section("source, in its own words", tuple(_source(record))),
        Section("gate", tuple(_lines(raw.get("gate")))),
        Section("effective precision and placement", tuple(_lines(raw.get("facts")))),
        Section("ceiling", tuple(_lines(raw.get("ceiling")))),
        Section("load", tuple(_lines(raw.get("load")))),
        Section("memory", tuple(line for entry in raw.get("memory", []) for line in _lines(_named(entry)))),
        Section("energy", tuple(_lines(raw.get("energy")))),
        Section("conditions", tuple(line for each in raw.get("conditions", []) for line in _lines(_named(each)))),
        Section("collector", tuple(_lines(raw.get("collector")))),
        Section("identity", tuple(_lines(raw["identity"]))),
        Section("covariates", tuple(_lines(raw["covariates"]))),
        Section("info", tuple(_lines(raw["info"]))),
    ]
    return [section for section in sections if section.lines]


def render_details(sections: Iterable[Section]) -> str:
    """Plain text: headings, and lines with their labels aligned."""
    blocks = []
    for section in sections:
        width = max(len(label) for label, _ in section.lines)
        lines = [f"  {plain_text(label):<{width}}  {plain_text(text)}".rstrip() for label, text in section.lines]
        blocks.append("\n".join([section.title, *lines]))
    return "\n\n".join(blocks) + "\n"


def _head(record: Record) -> Iterable[tuple[str, str]]:
    identity = record.identity
    yield "id", record.record_id
    yield "case", f"{identity.model}-{identity.scheme} {identity.backend} {identity.workload.name}"
    yield "status", record.status + (", claimed by whoever it was imported from" if record.origin == "imported" else "")
    if record.reason is not None:
        yield from (
            (label, text)
            for label, text in (
                ("reason", record.reason.what),
                ("phase", record.reason.phase),
                ("cause", record.reason.cause),
                ("remedy", record.reason.remedy),
            )
            if text
        )
    yield from _placed(record)
    yield from (("warning", text) for text in record.warnings)
    if record.path is not None:
        yield "file", str(record.path)
        log = record.path.with_name("worker.log")
        if log.is_file():
            yield "log", str(log)


def _placed(record: Record) -> Iterable[tuple[str, str]]:
    """How much was executed where it was asked, if anything was not, and how much may not have been."""
    facts, allowed = record.facts, record.info.allow_fallback
    if facts is None or (share := elsewhere_share(facts)) is None:
        return
    said = f"{render_share(1 - share)} of the matrix products on {facts.asked_placement}"
    named = executed_elsewhere(facts)
    yield "on provider", "; ".join(filter(None, (said, named, f"{render_share(allowed)} allowed" if allowed else "")))


def _figures(record: Record) -> Iterable[tuple[str, str]]:
    summary = summarize(record)
    ids = {metric.key: metric.id for metric in METRICS} | {f"itl_p{p}_s": "itl.v1" for p in PERCENTILE_FLOORS}
    for key, value in summary.values.items():
        if value.value is not None:
            yield key, f"{_quantity(key, value.value)}{_spread(key, value)}  [{ids[key]}]"


def _spread(key: str, value: Value) -> str:
    spread = "" if value.within_cv is None else f", varying by {value.within_cv:.1%}"
    if not value.n_samples:
        return f"  (the mean that the source states{spread})"
    mean = "" if value.mean is None or value.n_samples == 1 else f", mean {_quantity(key, value.mean)}"
    return f"  ({value.n_samples} samples{mean}{spread})"


def _source(record: Record) -> Iterable[tuple[str, str]]:
    """Where an imported record comes from, then every field of it by its own name and as it stands there."""
    if (source := record.source) is None:
        return
    yield "from", f"{source.format} {source.generation}, {source.notation}, {source.file}:{source.line}"
    for name, value in source.fields.items():
        if value is not None:
            yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _named(entry: dict[str, Any]) -> dict[str, Any]:
    """One device's memory, its figures prefixed by the device."""
    return {f"{entry['device']} {name}": value for name, value in entry.items() if name != "device"}


def _lines(value: Any, label: str = "") -> Iterable[tuple[str, str]]:
    """Flattened to leaves, `a.b` for nested names; what is empty or not measured is left out."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _lines(item, f"{label}.{name}" if label else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _lines(item, f"{label}[{index}]")
    elif value is not None:
        yield label, _quantity(label, value)


def _quantity(name: str, value: Any) -> str:
    """A number by the unit that its name ends in."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if name.endswith("_tokens_per_s"):
        return f"{render_number(value)} tokens/s"
    if name.endswith("_bytes_per_s"):
        return f"{render_bytes(value)}/s"
    if name.endswith("_bytes"):
        return render_bytes(value)
    if name.endswith("_s"):
        return render_duration(value)
    return str(value) if isinstance(value, int) else f"{value:.4g}"
