"""Intervals about one group of logarithms or about the difference of two, along the last axis.

Below 20 launches Student's t: bootstraps of so few cover 74 to 93 % where they say 95. From 20 on the Hodges-Lehmann
interval of the exact rank distribution, which one launch that went astray does not widen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bench.stats.distributions import TIE_DECIMALS, Floats, rank_sum_order, signed_rank_order, t_quantile

RANKS_FROM = 20
RANKS_UNTIL = 1000
"""Launches a side. Beyond, means are normal enough, and the differences of all with all would fill the memory."""

HIGHEST_LEVEL = 1 - 1e-12
"""Above, a float does not tell what is left outside."""


class Interval(NamedTuple):
    """Centre and bounds, each of the shape of the input without its last axis; centre and bounds are of one method."""

    centre: Floats
    low: Floats
    high: Floats
    method: str


def one_group(logs: Floats, level: float) -> Interval:
    """About the centre of `logs` [..., n], n >= 2: of launches, or of the differences of pairs."""
    n = logs.shape[-1]
    if RANKS_FROM <= n <= RANKS_UNTIL and (order := signed_rank_order(n, level)):
        return _between(means_of_two(logs), order, "Hodges-Lehmann interval of logs, signed ranks")
    error = logs.std(axis=-1, ddof=1) / np.sqrt(n)
    return _about(logs.mean(axis=-1), t_quantile(level, n - 1) * error, "t interval of logs")


def two_groups(a: Floats, b: Floats, level: float) -> Interval:
    """About the centre of `b` [..., m] less that of `a` [..., n], n and m >= 2."""
    n_a, n_b = a.shape[-1], b.shape[-1]
    few = min(n_a, n_b) < RANKS_FROM or max(n_a, n_b) > RANKS_UNTIL
    if not few and (order := rank_sum_order(n_a, n_b, level)):
        return _between(differences(a, b), order, "Hodges-Lehmann interval of logs, rank sums")
    error, freedom = welch(a.var(axis=-1, ddof=1), b.var(axis=-1, ddof=1), n_a, n_b)
    return _about(b.mean(axis=-1) - a.mean(axis=-1), t_quantile(level, freedom) * error, "t interval of logs, Welch")


def welch(variance_a: Floats, variance_b: Floats, n_a: Floats | int, n_b: Floats | int) -> tuple[Floats, Floats]:
    """(standard error, degrees of freedom) of the difference of two means, whose variances need not be equal."""
    of_a, of_b = variance_a / n_a, variance_b / n_b
    squares = of_a**2 / (n_a - 1) + of_b**2 / (n_b - 1)
    freedom = np.divide((of_a + of_b) ** 2, squares, out=np.ones_like(squares), where=squares > 0)
    return np.sqrt(of_a + of_b), freedom


def means_of_two(logs: Floats) -> Floats:
    """Walsh averages: the mean of each value with itself and with each later one."""
    first, second = np.triu_indices(logs.shape[-1])
    return np.asarray((logs[..., first] + logs[..., second]) / 2)


def differences(a: Floats, b: Floats) -> Floats:
    """Each of b less each of a."""
    return np.asarray((b[..., :, None] - a[..., None, :]).reshape(*a.shape[:-1], -1))


def _about(centre: Floats, half: Floats, method: str) -> Interval:
    return Interval(centre, centre - half, centre + half, method)


def _between(values: Floats, order: int, method: str) -> Interval:
    ordered = np.sort(np.round(values, TIE_DECIMALS), axis=-1)
    return Interval(np.median(ordered, axis=-1), ordered[..., order - 1], ordered[..., -order], method)
