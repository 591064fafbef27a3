"""How B stands to A: one verdict over launches, with its interval and what the tests say. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bench.stats import intervals
from bench.stats.distributions import Floats, positive, rank_sum_tails, signed_rank_tails, t_quantile
from bench.stats.intervals import Interval

Verdict = Literal["better", "worse", "same", "inconclusive"]

MOST_MORE = 10_000
"""Launches: who would need more is not told how many."""
MOST_LOG = 700.0
LIKELY = 0.84
"""Standard errors by which an estimate may move against us in four of five repetitions: normal_quantile(0.8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How B stands to A. All ratios are B / A.

    `ratio` is the centre that the interval is about: of geometric means, from 20 launches a side on Hodges-Lehmann.
    None without values; `low` and `high` None below two launches a side. Tests are two-sided and exact up to 100
    launches; the verdict does not use them. `smallest_p` is what they can reach with so many launches at best.
    `more`: further launches a side (or pairs) that would decide in four of five repetitions if this ratio and this
    spread were the true ones; None where it is decided or cannot be told.
    """

    verdict: Verdict
    ratio: float | None
    low: float | None
    high: float | None
    level: float
    n_a: int
    n_b: int
    paired: bool
    p_value: float | None
    smallest_p: float | None
    shift: float | None
    more: int | None
    method: str


def compare(
    a: Sequence[float],
    b: Sequence[float],
    *,
    paired: bool = False,
    margin: float = 0.02,
    level: float = 0.95,
    higher_is_better: bool = True,
) -> Comparison:
    """The verdict on launch values `a` and `b`, all positive; with `paired`, a[i] and b[i] are one interleaved pair.

    `same`: the interval lies within 1 / (1 + margin) and 1 + margin. `better`, `worse`: it excludes 1, and the ratio
    lies outside of that margin. Else `inconclusive`: more launches would tell. `level` is that of the interval; where
    one looks more than once while launches are added, it comes from `sequential.levels`. ValueError for values that
    are not positive and finite, pairs of unequal number, or a margin or level that is none.
    """
    if not (math.isfinite(margin) and margin > 0 and 0 < level <= intervals.HIGHEST_LEVEL):
        raise ValueError(f"margin must be positive and level between 0 and 1: {margin}, {level}")
    logs_a, logs_b = np.log(positive(a)), np.log(positive(b))
    if paired and len(a) != len(b):
        raise ValueError(f"pairs need as many of one side as of the other: {len(a)}, {len(b)}")
    interval = _interval(logs_a, logs_b, paired, level)
    verdict = _verdict(interval, math.log1p(margin), higher_is_better)
    ratio = _ratio(interval.centre) if interval else _ratio_of_few(logs_a, logs_b)
    undecided = interval is not None and verdict == "inconclusive"
    return Comparison(
        verdict=verdict,
        ratio=ratio,
        low=_ratio(interval.low) if interval else None,
        high=_ratio(interval.high) if interval else None,
        level=level,
        n_a=len(a),
        n_b=len(b),
        paired=paired,
        p_value=_p_value(logs_a, logs_b, paired),
        smallest_p=_smallest_p(len(a), len(b), paired),
        shift=_shift(logs_a, logs_b, paired),
        more=_more(logs_a, logs_b, paired, level, abs(float(interval.centre)), math.log1p(margin))
        if interval and undecided
        else None,
        method=interval.method if interval else "no interval: it needs two launches a side",
    )


def _interval(a: Floats, b: Floats, paired: bool, level: float) -> Interval | None:
    if min(len(a), len(b)) < 2:
        return None
    if not paired:
        return intervals.two_groups(a, b, level)
    found = intervals.one_group(b - a, level)
    return found._replace(method=f"{found.method}, of pairs")


def _verdict(interval: Interval | None, margin: float, higher_is_better: bool) -> Verdict:
    if interval is None:
        return "inconclusive"
    if -margin <= interval.low and interval.high <= margin:
        return "same"
    if abs(interval.centre) > margin and (interval.low > 0 or interval.high < 0):
        return "better" if (interval.centre > 0) == higher_is_better else "worse"
    return "inconclusive"


def _ratio(log: npt.ArrayLike) -> float:
    """Finite: two launches at a high level have an interval that no float can hold."""
    return math.exp(min(float(np.asarray(log)), MOST_LOG))


def _ratio_of_few(a: Floats, b: Floats) -> float | None:
    return _ratio(b.mean() - a.mean()) if len(a) and len(b) else None


def _shift(a: Floats, b: Floats, paired: bool) -> float | None:
    if not len(a) or not len(b) or max(len(a), len(b)) > intervals.RANKS_UNTIL:
        return None
    return _ratio(np.median(intervals.means_of_two(b - a) if paired else intervals.differences(a, b)))


def _p_value(a: Floats, b: Floats, paired: bool) -> float | None:
    if not len(a) or not len(b):
        return None
    return min(1.0, 2 * min(signed_rank_tails(b - a) if paired else rank_sum_tails(a, b)))


def _smallest_p(n_a: int, n_b: int, paired: bool) -> float | None:
    if not n_a or not n_b:
        return None
    return min(1.0, 2 * 0.5**n_a if paired else 2 / math.comb(n_a + n_b, n_a))


def _more(a: Floats, b: Floats, paired: bool, level: float, effect: float, margin: float) -> int | None:
    """How many more until the interval, as wide as this spread makes it, ends before 1 or before the margin."""
    further = np.arange(1.0, MOST_MORE + 1)
    if paired:
        n = len(a) + further
        error, freedom = (b - a).std(ddof=1) / np.sqrt(n), n - 1.0
    else:
        error, freedom = intervals.welch(a.var(ddof=1), b.var(ddof=1), len(a) + further, len(b) + further)
    room = effect if effect > margin else margin - effect
    enough = (t_quantile(level, freedom) + LIKELY) * error <= room
    return int(further[enough.argmax()]) if enough.any() else None
