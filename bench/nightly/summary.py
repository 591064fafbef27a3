"""Findings for people: Markdown for a job's summary, plain lines for a terminal. What records say is untrusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.attest import elsewhere_text
from bench.nightly.history import Night, changed
from bench.nightly.judging import VERDICTS, Incident, Judged
from bench.nightly.night import Findings
from bench.reports.render import markdown_text, plain_text
from bench.results.ids import uuid7_time
from bench.results.record import Record
from bench.units import render_number

MOST_BYTES = 60_000
"""Of the Markdown: a comment on GitHub holds 65 536 characters."""
MOST_CHANGES, LONGEST_CELL = 12, 600

_TITLES = {
    "regression": "Confirmed regressions",
    "suspected": "Suspected: pairs are missing",
    "unconfirmed": "Candidates that pairs did not confirm",
    "incident": "Moved with their machine",
    "improved": "Faster",
    "too-little-data": "Too little data: no verdict",
    "quarantined": "Quarantined: never alarmed",
    "quiet": "Quiet",
}
_COLUMNS = ("series", "tokens/s", "usual", "ratio", "nights", "launches", "what is known")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, and a table as text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Records of one case that are `failed` or `invalid` for one reason."""

    records: tuple[Record, ...]
    quarantined: bool

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def reason(self) -> str:
        told = self.first.reason
        if told is None:
            return "no reason is known"
        where = f"{told.phase}: " if told.phase else ""
        return where + told.what + (f" ({told.cause})" if told.cause else "")


def headline(findings: Findings) -> str:
    """The night in one line: how many series by verdict, the most serious first, and what is not a series."""
    counts = Counter(each.verdict for each in findings.judged)
    said = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]]
    lost = len(failures(findings))
    said += [f"{lost} failed or invalid"] * bool(lost)
    said += [f"{len(findings.errors)} not executed"] * bool(findings.errors)
    return f"Nightly {findings.at_utc[:10]}: " + (", ".join(said) or "nothing was measured")


def sections(findings: Findings) -> list[Section]:
    """Everything that is known of the night, the most serious first; empty ones are left out."""
    names = labels(findings.judged)
    of_verdict = {
        verdict: Section(
            title=_TITLES[verdict],
            columns=_COLUMNS,
            rows=tuple(_row(names[each.series.key], each) for each in findings.judged if each.verdict == verdict),
        )
        for verdict in VERDICTS
    }
    whole = Section(
        title="Whole machines: one alert each",
        columns=("machine", "series that moved", "ratio", "what is known"),
        rows=tuple(_incident_row(each, findings.judged, names) for each in findings.incidents),
    )
    lost = Section(
        title="Failed and invalid",
        columns=("case", "status", "launches", "reason"),
        rows=tuple(_failure_row(each) for each in failures(findings)),
    )
    missing = Section(
        title="Not executed",
        columns=("entry", "reason"),
        rows=tuple((entry.title, str(error)) for entry, error in findings.errors),
    )
    serious = [whole, *(of_verdict.pop(verdict) for verdict in ("regression", "suspected", "unconfirmed"))]
    return [each for each in (*serious, lost, missing, *of_verdict.values()) if each.rows]


def render_markdown(findings: Findings) -> str:
    """The sections as GitHub tables in fewer than MOST_BYTES bytes; what does not fit is counted in the last line."""
    text = f"## {markdown_text(headline(findings))}\n"
    size, left_out = len(text.encode()), 0
    room = MOST_BYTES - 200  # for the last line
    for section in sections(findings):
        head = f"\n### {section.title} ({len(section.rows)})\n\n" + _line(section.columns)
        head += _line(["---"] * len(section.columns))
        for row in section.rows:
            line = head + _line([markdown_text(_clipped(cell)) or "–" for cell in row])
            if left_out or size + len(line.encode()) > room:
                left_out += 1
                continue
            text, size, head = text + line, size + len(line.encode()), ""
    return text + (f"\n{left_out} more rows are left out here: the JSON has them all.\n" if left_out else "")


def render_terminal(findings: Findings) -> str:
    """One line for the night, and one for everything that is not quiet."""
    lines = [headline(findings)]
    for section in sections(findings):
        if section.title != _TITLES["quiet"]:
            lines.append(f"{section.title}:")
            lines += ["  " + "  ".join(filter(None, map(_clipped, row))) for row in section.rows]
    return "".join(f"{line}\n" for line in lines)


def labels(judged: Iterable[Judged]) -> dict[str, str]:
    """Names of series for people, by their key: what tells equal names apart is appended."""
    keys = {each.series.key: each.series.tonight.newest for each in judged}
    groups: dict[str, list[str]] = {}
    for key, record in keys.items():
        groups.setdefault(label(record), []).append(key)
    found = {}
    for name, members in groups.items():
        options = [keys[key].identity.options for key in members]
        told = {option for each in options for option in each if any(o.get(option) != each[option] for o in options)}
        for key in members:
            mine = [f"{option}={value}" for option, value in keys[key].identity.options.items() if option in told]
            found[key] = " ".join([name, *mine, *([_short(key)] if len(members) > 1 else [])])
    return found


def label(record: Record) -> str:
    """`smollm2-135m-int8 onnx tg128`."""
    identity = record.identity
    return f"{identity.model}-{identity.scheme} {identity.backend} {identity.workload.name}"


def failures(findings: Findings) -> list[Failure]:
    """What failed or is invalid, by case and reason, in the order in which it happened."""
    groups: dict[tuple[bool, str, str, str], list[Record]] = {}
    for quarantined, records in ((False, findings.records), (True, findings.quarantined)):
        for record in records:
            if record.status in ("failed", "invalid"):
                case, _, _ = (record.info.case_key or record.series_key).partition("/")
                what = record.reason.what if record.reason else ""
                groups.setdefault((quarantined, case, record.status, what), []).append(record)
    return [Failure(records=tuple(records), quarantined=key[0]) for key, records in groups.items()]


def changes(judged: Judged) -> tuple[str, dict[str, tuple[str, str]]]:
    """Since when, and what changed: since the last good night, or since the segment began where it has no history."""
    series = judged.series
    since = series.before if judged.verdict == "too-little-data" else judged.good
    if since is None or judged.verdict == "quiet":
        return "", {}
    return day(since), changed(since, series.tonight)


def day(night: Night) -> str:
    """The date of a night, UTC."""
    return f"{uuid7_time(night.records[0].launch_id):%Y-%m-%d}"


def usual(judged: Judged) -> float | None:
    """The median of its nights; None where they are too few for a verdict."""
    return median(night.value for night in judged.series.nights) if judged.ratio is not None else None


def note(judged: Judged) -> str:
    """What is known of it beside its numbers: pairs, why there is no verdict, and what changed."""
    return "; ".join(_known(judged))


def _row(name: str, judged: Judged) -> tuple[str, ...]:
    series = judged.series
    return (
        name,
        render_number(series.tonight.value),
        render_number(usual(judged)),
        _ratio(judged.ratio),
        str(len(series.nights)),
        str(len(series.tonight.records)),
        note(judged),
    )


def _known(judged: Judged) -> Iterator[str]:
    series = judged.series
    if judged.why:
        yield judged.why
    if judged.pairs:
        yield f"{len(judged.pairs)} pairs: {_ratio(median(judged.pairs))} of the last good night"
    if (facts := series.tonight.newest.facts) and (elsewhere := elsewhere_text(facts)):
        yield f"elsewhere than asked: {elsewhere}"
    if series.quarantine is not None:
        until = f"until {series.quarantine.until_utc}" if series.quarantine.until_utc else "without an end"
        yield f"quarantined {until}" + _said(series.quarantine.reason, series.quarantine.author)
    if judged.verdict == "too-little-data" and series.acknowledged is not None:
        yield "history began anew" + _said(series.acknowledged.reason, series.acknowledged.author)
    if judged.verdict == "too-little-data" and _other_precision(judged):
        yield f"another {_what_changed(judged)} than before: a new segment"
    since, differences = changes(judged)
    if differences:
        yield f"changed since {since}: " + _listed(differences)
    elif since and judged.verdict in ("regression", "suspected", "unconfirmed"):
        yield f"nothing known changed since {since}"


def _other_precision(judged: Judged) -> bool:
    before = judged.series.before
    return before is not None and before.newest.precision_key != judged.series.tonight.newest.precision_key


def _what_changed(judged: Judged) -> str:
    """Of what a segment is: precision, and how much was executed elsewhere than asked."""
    before, now = judged.series.before, judged.series.tonight.newest.facts
    then = before.newest.facts if before else None
    same = then is None or now is None or elsewhere_text(then) == elsewhere_text(now)
    return "precision" if same else "share of work elsewhere"


def _listed(differences: Mapping[str, tuple[str, str]]) -> str:
    shown = [f"{name} {_clipped(then, 60)} → {_clipped(now, 60)}" for name, (then, now) in differences.items()]
    more = len(shown) - MOST_CHANGES
    return ", ".join(shown[:MOST_CHANGES]) + (f", {more} more" if more > 0 else "")


def _incident_row(incident: Incident, judged: Sequence[Judged], names: Mapping[str, str]) -> tuple[str, ...]:
    asked = [each for each in judged if each.host_id == incident.host_id and each.pairs and incident.slower]
    known = [
        f"{names[each.series.key]}: "
        + ("confirmed by pairs: not the machine" if each.verdict == "regression" else "not confirmed by pairs")
        for each in asked
        if each.verdict in ("regression", "incident")
    ]
    moved = f"{incident.moved} of {incident.of} {'slower' if incident.slower else 'faster'}"
    return incident.host_id or "unknown", moved, _ratio(incident.ratio), "; ".join(known)


def _failure_row(failure: Failure) -> tuple[str, ...]:
    status = failure.first.status + (", quarantined" if failure.quarantined else "")
    return label(failure.first), status, str(len(failure.records)), failure.reason


def _said(reason: str | None, author: str | None) -> str:
    told = [text for text in (reason, f"by {author}" if author else None) if text]
    return f" ({', '.join(told)})" if told else ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _ratio(value: float | None) -> str:
    return render_number(value) if value is None else f"{value:.3f}"


def _clipped(text: str, most: int = LONGEST_CELL) -> str:
    text = plain_text(text[: 4 * most])
    return text if len(text) <= most else text[: most - 1] + "…"


def _short(key: str) -> str:
    series, _, precision = key.partition(" ")
    return f"{series[:6]}/{precision[:6]}"
