"""Quantiles and tails: Student's t and the normal distribution from scipy, rank statistics counted exactly.

The only module that imports scipy. Equal values share the mean of their ranks, so ranks are counted in halves: a
"half rank" is twice a rank, a whole number. Given which values are equal, the tails are exact with ties too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from bench.errors import missing_imports

with missing_imports("scipy", where="comparing", remedy="pip install 'evenbench[analysis]'"):
    from scipy import special

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

EXACT_LAUNCHES = 100
"""Of both sides together: with more, ranks are taken to be normal; counting would take longer than a second."""

TIE_DECIMALS = 12
"""Values that are equal so far are ties: equal ratios have logarithms that differ in their last bits."""


def positive(values: Sequence[float]) -> Floats:
    """`values` as an array; ValueError unless each is positive and finite."""
    found = np.asarray(values, dtype=float)
    if found.ndim != 1 or not (np.isfinite(found).all() and (found > 0).all()):
        raise ValueError("values must be positive and finite numbers")
    return found


def t_quantile(level: float, freedom: npt.ArrayLike) -> Floats:
    """The t for which P(|T| < t) = `level`, at degrees of freedom that need not be whole."""
    return np.asarray(special.stdtrit(freedom, (1 + level) / 2), dtype=float)


def t_outside(t: npt.ArrayLike, freedom: npt.ArrayLike) -> Floats:
    """P(|T| >= |t|)."""
    return np.asarray(2 * special.stdtr(freedom, -np.abs(t)), dtype=float)


def normal(z: npt.ArrayLike) -> Floats:
    """P(Z <= z) of the standard normal distribution."""
    return np.asarray(special.ndtr(z), dtype=float)


def normal_quantile(probability: float) -> float:
    """The z for which P(Z <= z) = `probability`."""
    return float(special.ndtri(probability))


def signed_rank_tails(differences: npt.ArrayLike) -> tuple[float, float]:
    """(P(W <= seen), P(W >= seen)), W: sum of the ranks of positive differences, if either sign were as likely.

    Differences of zero are ranked but have no sign (Pratt), so that they count for neither side.
    """
    values = np.round(np.asarray(differences, dtype=float), TIE_DECIMALS)
    ranks = half_ranks(np.abs(values))
    seen, ranks = int(ranks[values > 0].sum()), ranks[values != 0]
    if len(ranks) <= EXACT_LAUNCHES:
        return _tails(_signed_rank_chances(ranks), seen)
    return _normal_tails(seen, float(ranks.sum()) / 2, float((ranks**2).sum()) / 4)


def rank_sum_tails(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[float, float]:
    """(P(R <= seen), P(R >= seen)), R: sum of b's ranks among all, if both came from one urn (Mann-Whitney)."""
    together = np.concatenate([np.asarray(a, dtype=float), np.asarray(b, dtype=float)])
    n_b, ranks = np.size(b), half_ranks(np.round(together, TIE_DECIMALS))
    n, seen = len(ranks), int(ranks[len(ranks) - n_b :].sum())
    if n <= EXACT_LAUNCHES:
        return _tails(_rank_sum_chances(ranks, n_b), seen)
    variance = n_b * (n - n_b) / (n - 1) * float(ranks.var())
    return _normal_tails(seen, n_b * float(ranks.mean()), variance)


@lru_cache(maxsize=256)
def signed_rank_order(n: int, level: float) -> int:
    """The k for which the k-th smallest and the k-th largest mean of two of n differences enclose `level` at least.

    0 where not even the outermost do.
    """
    if n > EXACT_LAUNCHES:
        return _normal_order(n * (n + 1) / 4, n * (n + 1) * (2 * n + 1) / 24, level)
    chances = _signed_rank_chances(2 * np.arange(1, n + 1))
    return _order(chances[::2], level)


@lru_cache(maxsize=256)
def rank_sum_order(n_a: int, n_b: int, level: float) -> int:
    """The same for the differences between each of n_b and each of n_a values."""
    n = n_a + n_b
    if n > EXACT_LAUNCHES:
        return _normal_order(n_a * n_b / 2, n_a * n_b * (n + 1) / 12, level)
    chances = _rank_sum_chances(2 * np.arange(1, n + 1), n_b)
    return _order(chances[n_b * (n_b + 1) :: 2], level)


def half_ranks(values: Floats) -> Ints:
    """Twice the rank of each value from 1 on; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((2 * np.cumsum(count) - count + 1)[place.ravel()], dtype=np.int64)


def _signed_rank_chances(ranks: Ints) -> Floats:
    """P(sum = 0), P(sum = 1), …, where each of `ranks` is in the sum or not, as a coin falls."""
    chances = np.zeros(int(ranks.sum()) + 1)
    chances[0] = 1.0
    for rank in ranks:
        chances[rank:] += chances[:-rank].copy()
        chances /= 2
    return chances


def _rank_sum_chances(ranks: Ints, chosen: int) -> Floats:
    """P(sum = 0), P(sum = 1), … of `chosen` of `ranks`, drawn without putting back."""
    most = int(np.sort(ranks)[len(ranks) - chosen :].sum())
    ways = np.zeros((chosen + 1, most + 1))
    ways[0, 0] = 1.0
    for rank in ranks:
        if rank <= most:
            ways[1:, rank:] += ways[:-1, : most + 1 - rank].copy()
    return np.asarray(ways[chosen] / ways[chosen].sum(), dtype=float)


def _tails(chances: Floats, seen: int) -> tuple[float, float]:
    return min(1.0, float(chances[: seen + 1].sum())), min(1.0, float(chances[seen:].sum()))


def _normal_tails(seen: int, mean: float, variance: float) -> tuple[float, float]:
    """With half a rank of continuity, which is one half rank."""
    scale = float(np.sqrt(variance)) or 1.0
    return float(normal((seen + 1 - mean) / scale)), float(normal((mean + 1 - seen) / scale))


def _order(chances: Floats, level: float) -> int:
    """How many of the smallest sums lie outside of `level` with at most half of what is outside."""
    return int(np.searchsorted(np.cumsum(chances), (1 - level) / 2, side="right"))


def _normal_order(mean: float, variance: float, level: float) -> int:
    return max(0, int(mean + 0.5 + normal_quantile((1 - level) / 2) * np.sqrt(variance)))
