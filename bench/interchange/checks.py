"""What a row of llama-bench must hold to be taken as what it says. Every refusal names file, line and field."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import datetime
from statistics import fmean, stdev
from typing import Any

from bench.errors import UsageError
from bench.interchange.llama_bench import KINDS, MARKS, REQUIRED, SAMPLES, Row, mangled
from bench.results.keys import canonical_json

MOST_TOKENS = 10**9
MOST_NS = 10**16
"""115 days."""
MOST_PER_S = 1e12
MOST_INT = 2**64 - 1
MOST_TEXT = 65536
MOST_SAMPLES = 100_000


def check(fields: Any, where: str) -> dict[str, Any]:
    """The fields of one row as they are; a rate that is no number becomes None where it is not needed.

    UsageError where something is missing, of another type, impossible, or contradicts the rest of the row.
    """
    if not any(mark in fields for mark in MARKS):
        raise UsageError("not a row of llama-bench", where=where, cause=f"it has none of {', '.join(MARKS)}")
    if missing := [name for name in REQUIRED if name not in fields]:
        raise UsageError(f"lacks {', '.join(missing)}", where=where, cause="it was edited, or made by another tool")
    row = {_checked_text("a field's name", name, where): _checked(name, value, where) for name, value in fields.items()}
    _check_workload(row, where)
    _check_time(row["test_time"], where)
    samples = _check_samples(row, where)
    if samples is None:
        _check_average(row, where)
    else:
        _check_figures(row, samples, where)
    return row


def from_text(cells: Mapping[str, str], where: str) -> dict[str, Any]:
    """The cells of a CSV line as the types that JSON has for them; what is unknown stays text."""
    return {name: _from_text(name, text, where) for name, text in cells.items()}


def digest(row: Row) -> str:
    """Hex SHA-256 of a row: equal for one test in any notation, and so without samples, which CSV has not."""
    told = {name: _spelled(value) for name, value in row.fields.items() if name not in SAMPLES}
    return hashlib.sha256(canonical_json(told)).hexdigest()


def _spelled(value: Any) -> str:
    if value is None:
        return ""
    return mangled(value) if isinstance(value, str) else str(int(value) if isinstance(value, bool) else value)


def _from_text(name: str, text: str, where: str) -> Any:
    kind = KINDS.get(name, "text")
    if kind == "text":
        return text
    lower = text.strip().lower()
    if kind in ("flag", "state") and lower in ("true", "false"):
        return lower == "true"
    if kind == "flag" and lower in ("0", "1"):
        return lower == "1"
    try:
        if len(lower) > 40 or "_" in lower:
            raise ValueError
        return float(lower) if kind == "real" else int(lower)
    except ValueError:
        raise _refused(name, text, "a number", where) from None


def _checked(name: str, value: Any, where: str) -> Any:
    if name in SAMPLES:
        return value  # looked at together with the figures
    if value is None and name not in (*MARKS, "avg_ns", "test_time"):
        return None  # not known: what this project exports says so
    kind = KINDS.get(name)
    if isinstance(value, str) and kind in (None, "text"):
        return _checked_text(name, value, where)
    if isinstance(value, bool):
        if kind in (None, "flag", "state"):
            return value
    elif isinstance(value, int):
        low = 0 if kind in ("count", "flag") else -(2**63)
        high = 1 if kind == "flag" else MOST_INT
        if kind != "text" and low <= value <= high:
            return value
    elif isinstance(value, float) and kind in (None, "real"):
        if math.isfinite(value):
            return value
        if math.isnan(value) and name == "stddev_ts":
            return None  # llama-bench takes the root of a difference that can come out below zero
    raise _refused(name, value, _WANTED.get(kind or "", "a number or text"), where)


_WANTED = {
    "text": "text",
    "count": "a whole number from 0 on",
    "int": "a whole number",
    "flag": "true or false",
    "state": "true, false or a whole number",
    "real": "a finite number",
}


def _checked_text(name: str, value: str, where: str) -> str:
    if len(value) > MOST_TEXT:
        raise UsageError(f"{_shown(name)[1:-1]} has {len(value)} characters, more than {MOST_TEXT}", where=where)
    try:
        value.encode()
    except UnicodeEncodeError:
        what = f"{_shown(name)[1:-1]} holds half of a character"
        raise UsageError(what, where=where, cause="a lone surrogate") from None
    return value


def _check_workload(row: Mapping[str, Any], where: str) -> None:
    for name in ("n_prompt", "n_gen", "n_depth"):
        if (row.get(name) or 0) > MOST_TOKENS:
            raise _refused(name, row[name], "at most 1e9 tokens", where)
    if not row["n_prompt"] and not row["n_gen"]:
        raise UsageError("n_prompt and n_gen are both 0: nothing was measured", where=where)
    if not 0 < row["avg_ns"] <= MOST_NS:
        raise _refused("avg_ns", row["avg_ns"], "a time in nanoseconds above 0 and below 1e16", where)
    if not 0 < row["avg_ts"] <= MOST_PER_S:
        raise _refused("avg_ts", row["avg_ts"], "a rate in tokens/s above 0 and below 1e12", where)
    if (row["stddev_ts"] or 0) < 0:
        raise _refused("stddev_ts", row["stddev_ts"], "a rate from 0 on", where)


def _check_time(text: str, where: str) -> None:
    try:
        if len(text) > 40:
            raise ValueError
        datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        raise _refused("test_time", text, "a time like 2026-01-31T12:00:00Z", where) from None


def _check_samples(row: Mapping[str, Any], where: str) -> list[int] | None:
    """samples_ns of a row that has them."""
    samples, rates = row.get("samples_ns"), row.get("samples_ts")
    if samples is None:
        if rates is not None:
            raise UsageError("samples_ts without samples_ns", where=where)
        return None
    if not isinstance(samples, list) or not 0 < len(samples) <= MOST_SAMPLES:
        raise UsageError("samples_ns is no list of times", where=where)
    for index, value in enumerate(samples):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MOST_NS:
            raise _refused(f"samples_ns[{index}]", value, "a time in nanoseconds", where)
    if rates is None:
        return samples
    if not isinstance(rates, list) or len(rates) != len(samples):
        raise UsageError("samples_ts is no list as long as samples_ns", where=where)
    for index, value in enumerate(rates):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MOST_PER_S:
            raise _refused(f"samples_ts[{index}]", value, "a rate in tokens/s", where)
    return samples


def _check_figures(row: Mapping[str, Any], samples: list[int], where: str) -> None:
    """The averages follow from the samples: what contradicts them was edited, or counts otherwise."""
    rates = [1e9 * (row["n_prompt"] + row["n_gen"]) / sample for sample in samples]
    mean = fmean(rates)
    spread = stdev(rates) if len(rates) > 1 else 0.0
    close = 1e-6 + 1e-6 * mean
    stated = row["stddev_ts"]
    for name, value, true, off in (
        ("avg_ns", row["avg_ns"], sum(samples) // len(samples), 1),
        ("avg_ts", row["avg_ts"], mean, close),
        # a difference of squares: where all samples are nearly equal its root is wrong by up to sqrt(epsilon)
        ("stddev_ts", spread if stated is None else stated, spread, close),
        *((f"samples_ts[{i}]", r, rates[i], 1e-5 * rates[i]) for i, r in enumerate(row.get("samples_ts") or ())),
    ):
        if abs(value - true) > off:
            raise UsageError(
                f"{name} is {value:.10g}, but samples_ns give {true:.10g}",
                where=where,
                cause="it was edited, or made by a fork that counts otherwise",
            )


def _check_average(row: Mapping[str, Any], where: str) -> None:
    """Without samples: a mean of rates is never below the rate of the mean time."""
    least = 1e9 * (row["n_prompt"] + row["n_gen"]) / (row["avg_ns"] + 1)
    if row["avg_ts"] < least * (1 - 1e-6) - 1e-6:
        raise UsageError(
            f"avg_ts is {row['avg_ts']:.10g}, but avg_ns gives at least {least:.10g}",
            where=where,
            cause="it was edited, or made by a fork that counts otherwise",
        )


def _refused(name: str, value: Any, wanted: str, where: str) -> UsageError:
    return UsageError(f"{_shown(name)[1:-1]} is {_shown(value)}, not {wanted}", where=where)


def _shown(value: Any) -> str:
    """As JSON has it, short, in ASCII and on one line: what stands in a foreign file may not reach a terminal."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…{text[-1]}"
