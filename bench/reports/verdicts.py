"""Rows of a comparison as terminal text, Markdown and JSON. What comes from records is escaped for each. Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from rich.cells import cell_len

from bench.comparing import Changes, Compared, Sides, centre
from bench.pairing import NOTHING, Alone
from bench.reports.render import markdown_text, plain_text
from bench.units import NOT_MEASURED, render_bytes, render_duration, render_number

REFUSED = "refused"
GRAVEST_FIRST = ("worse", "inconclusive", "better", "same")
MOST_ALONE = 10
"""Lines for what stands on one side alone; JSON has all of it."""

_COLORS = {"better": "32", "worse": "31", "inconclusive": "33", REFUSED: "33"}
_DIGEST = re.compile(r"[0-9a-f]{32,}")
_HEADERS = ("verdict", "B / A", "interval", "n", "A", "B")
_RIGHT = ("B / A", "A", "B")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A side as it was asked for: the words for it, its launches that count, and how many records do not, by reason."""

    words: str
    launches: int
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """Both sides, and the ratio within which they are the same."""

    a: Asked
    b: Asked
    margin: float


def render_terminal(sides: Sides, heading: Heading, *, width: int = 80, color: bool = False) -> str:
    """A line for each row, and below it what must be known beside the verdict. Plain unless `color`."""
    cells = [list(_HEADERS), *(_cells(row) for row in sides.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [line for told in _heading(sides, heading) for line in _wrapped(told, width, "   ")] + [""]
    for row, texts in zip((None, *sides.rows), cells, strict=True):
        numbers = "  ".join(
            text.rjust(most) if name in _RIGHT else text.ljust(most)
            for name, text, most in zip(_HEADERS, texts, widths, strict=True)
        )
        name = plain_text(f"{row.model} {row.workload}") if row else ""
        fits = cell_len(f"{numbers}  {name}") <= width
        code = _COLORS.get(texts[0]) if color else None
        shown = f"\x1b[{code}m{texts[0]}\x1b[0m{numbers[len(texts[0]) :]}" if code else numbers
        lines.append(f"{shown}  {name}".rstrip() if fits else shown.rstrip())
        below = [*([] if fits else [name]), *(_below(row) if row else ())]
        lines += [line for told in below for line in _wrapped(told, width, "    ", first="  ")]
    lines += [line for told in _alone(sides) for line in _wrapped(told, width, "  ")]
    return "".join(f"{line}\n" for line in lines)


def render_markdown(sides: Sides, heading: Heading) -> str:
    """A GitHub table, a line for each row with everything in it."""
    headers = ("verdict", "model", "workload", *_HEADERS[1:], "beside it")
    lines = [headers, tuple("---:" if name in _RIGHT else "---" for name in headers)]
    for row in sides.rows:
        verdict, *numbers = _cells(row)
        beside = "<br>".join(markdown_text(told) for told in _below(row))
        lines.append((f"**{verdict}**", markdown_text(row.model), markdown_text(row.workload), *numbers, beside))
    said = "".join(f"{markdown_text(told)}\n\n" for told in _heading(sides, heading))
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    alone = "".join(f"\n- {markdown_text(told)}" for told in _alone(sides))
    return f"{said}{table}{alone}\n" if alone else said + table


def render_json(sides: Sides, heading: Heading, **more: Any) -> str:
    """One object on one line: the verdict over all `rows`, what stands on one side alone, and `more`."""
    asked = (("a", heading.a), ("b", heading.b))
    told = {
        **_over_all(sides.rows),
        **more,
        **{name: {"words": of.words, "launches": of.launches, "left_out": dict(of.left_out)} for name, of in asked},
        "margin": heading.margin,
        "rows": [_plain(row) for row in sides.rows],
        "only_in_a": [_alone_plain(each) for each in sides.only_a],
        "only_in_b": [_alone_plain(each) for each in sides.only_b],
    }
    return msgspec.json.encode(told).decode()


def _over_all(rows: Sequence[Compared]) -> dict[str, Any]:
    """The row's figures where there is one; of several the gravest verdict alone, null where none has one."""
    verdicts = {row.comparison.verdict for row in rows if row.comparison}
    found = rows[0].comparison if len(rows) == 1 else None
    return {
        "verdict": next((verdict for verdict in GRAVEST_FIRST if verdict in verdicts), None),
        **{name: getattr(found, name) if found else None for name in ("ratio", "low", "high")},
        "n": min((min(len(row.a), len(row.b)) for row in rows), default=0),
        "covariates_changed": rows[0].covariates if len(rows) == 1 else None,
    }


def _plain(row: Compared) -> dict[str, Any]:
    found = row.comparison
    numbers = ("verdict", "ratio", "low", "high", "level", "p_value", "smallest_p", "shift", "more", "paired", "method")
    return {
        "model": row.model,
        "workload": row.workload,
        "figure": row.figure,
        **{name: getattr(found, name) if found else None for name in numbers},
        "refused": row.refused,
        "n": [len(row.a), len(row.b)],
        "a": row.a,
        "b": row.b,
        "differs": row.differs,
        "precision_changed": row.precision,
        "covariates_changed": row.covariates,
        "elsewhere": row.elsewhere,
        "unproven": row.unproven,
        "badges": row.badges,
    }


def _alone_plain(alone: Alone) -> dict[str, Any]:
    fields = alone.pool.fields
    named = {name: fields[name] for name in ("model", "scheme", "backend", "workload", "machine")}
    return {**named, "for": {alone.name: alone.value}, "n": len({r.launch_id for r in alone.pool.records})}


def _heading(sides: Sides, heading: Heading) -> list[str]:
    levels = sorted({row.comparison.level for row in sides.rows if row.comparison})
    figures = dict.fromkeys("tok/s" if row.figure.endswith("tokens_per_s") else row.figure for row in sides.rows)
    what = f"B against A in {', '.join(figures)}; same is within {heading.margin * 100:.3g} %"
    what += "".join(f"; interval of {level * 100:.4g} %" for level in levels)
    return [f"A  {_asked(heading.a)}", f"B  {_asked(heading.b)}", what]


def _asked(side: Asked) -> str:
    text = f"{side.words}: {side.launches} launch" + "es" * (side.launches != 1)
    others = ", ".join(f"{count} {why}" for why, count in sorted(side.left_out.items()))
    return plain_text(text + (f"; left out {others}" if others else ""))


def _cells(row: Compared) -> list[str]:
    found = row.comparison
    n = f"{len(row.a)}+{len(row.b)}"
    return [
        found.verdict if found else REFUSED,
        _ratio(found.ratio if found else None),
        f"{_ratio(found.low)} – {_ratio(found.high)}" if found and found.low is not None else NOT_MEASURED,
        f"{found.n_a} pairs" if found and found.paired else n,
        _value(row.figure, centre(row.a)),
        _value(row.figure, centre(row.b)),
    ]


def _below(row: Compared) -> Iterator[str]:
    """What stands below a row, a line each."""
    if row.refused:
        yield plain_text(f"no verdict: {_short(row.refused)}")
    for name, changes in (("differs", row.differs), ("precision", row.precision), ("changed", row.covariates)):
        if changes:
            yield plain_text(f"{name}: {_changes(changes)}")
    if any(row.elsewhere):
        a, b = (told or NOTHING for told in row.elsewhere)
        yield plain_text(f"elsewhere than asked: A {a}; B {b}")
    if row.badges:
        yield f"badges: {', '.join(row.badges)}"
    yield from _notes(row)


def _notes(row: Compared) -> Iterator[str]:
    """How many launches would decide, and what so few can never show."""
    found = row.comparison
    if found is None:
        return
    n = str(found.n_a) if found.n_a == found.n_b else f"{found.n_a} and {found.n_b}"
    if found.low is None:
        yield f"n = {n} has no interval and can never be significant: `bench run --launches 5`"
        return
    if found.verdict == "inconclusive":
        what = "pairs" if found.paired else "launches a side"
        yield f"{what} that would decide: " + (f"about {found.more} more" if found.more else "nobody can tell how many")
    if found.smallest_p is not None and found.smallest_p > 1 - found.level:
        yield f"n = {n} can never be significant: of a rank test p is {found.smallest_p:.2g} at best"


def _alone(sides: Sides) -> list[str]:
    told = [
        _short(f"only in {side}: {each.pool.label} ({each.name} {each.value or 'unknown'})")
        for side, of in (("A", sides.only_a), ("B", sides.only_b))
        for each in of
    ]
    told = [plain_text(line) for line in dict.fromkeys(told)]
    return told[:MOST_ALONE] + [f"and {len(told) - MOST_ALONE} more on one side alone"] * (len(told) > MOST_ALONE)


def _changes(changes: Changes) -> str:
    return "; ".join(f"{name} {_short(a)} → {_short(b)}" for name, (a, b) in changes.items())


def _short(text: str | None) -> str:
    """Digests by their beginning."""
    return NOT_MEASURED if text is None else _DIGEST.sub(lambda found: found[0][:10], text)


def _ratio(value: float | None) -> str:
    if value is None:
        return NOT_MEASURED
    if not 0.01 <= value < 10_000:
        return f"{value:.0e}"
    return f"{value:.3f}" if value < 100 else render_number(value)


def _value(figure: str, value: float | None) -> str:
    if figure.endswith("_s") and not figure.endswith("_per_s"):
        return render_duration(value)
    return render_bytes(value) if figure.endswith("_bytes") else render_number(value)


def _wrapped(text: str, width: int, indent: str, *, first: str = "") -> Sequence[str]:
    """Lines broken between words only: what is to be typed stays whole."""
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ) or [first]
