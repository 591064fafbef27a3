"""Looking more than once while pairs are added, without finding what is not there. Pure.

Whoever looks at a 95 % interval after 8, 16 and 32 pairs is wrong more often than in 5 of 100: each look is a chance
of its own. Here the 5 % are spent over the looks as Lan and DeMets (1983) do with O'Brien and Fleming's shape, which
spends little on the early ones: the intervals of all looks hold together with 95 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from bench.stats.distributions import Floats, normal, normal_quantile
from bench.stats.intervals import HIGHEST_LEVEL

LOOKS = (8, 16, 32)
NODES = 256
"""Of the integration; with half as many the levels move in the ninth digit."""
FURTHEST_Z = 12.0


def levels(looks: Sequence[int] = LOOKS, alpha: float = 0.05) -> tuple[float, ...]:
    """The level of the interval at each of `looks` (numbers of pairs, increasing), so that all hold with 1 - `alpha`.

    By recursive numerical integration (Armitage, McPherson and Rowe 1969), without random numbers. ValueError for
    looks that do not increase from 1 on, or an alpha that is not between 0 and 1.
    """
    if not looks or list(looks) != sorted(set(looks)) or looks[0] < 1 or not 0 < alpha < 1:
        raise ValueError(f"looks must increase, and alpha lie between 0 and 1: {tuple(looks)}, {alpha}")
    times = np.asarray(looks, dtype=float) / looks[-1]
    spent = 4 * normal(-normal_quantile(1 - alpha / 4) / np.sqrt(times))
    found: list[float] = []
    walk = _Walk()
    for time, spend in zip(times, np.diff(spent, prepend=0.0), strict=True):
        z = walk.until(float(time), float(spend))
        found.append(min(float(1 - 2 * normal(-z)), HIGHEST_LEVEL))
    return tuple(found)


class _Walk:
    """A Brownian motion that ends where it meets a boundary: the density of those still on their way."""

    def __init__(self) -> None:
        self.time = 0.0
        self.places, self.mass = np.zeros(1), np.ones(1)

    def until(self, time: float, spend: float) -> float:
        """The boundary at `time`, as z, that ends `spend` of all walks; those are gone afterwards."""
        step = np.sqrt(time - self.time)
        near, far = 0.0, FURTHEST_Z
        for _ in range(100):
            z = (near + far) / 2
            near, far = (z, far) if self._ended(z * np.sqrt(time), step) > spend else (near, z)
        bound = far * np.sqrt(time)
        nodes, weights = _gauss_legendre()
        places: Floats = nodes * bound
        density = np.exp(-(((places[:, None] - self.places) / step) ** 2) / 2) / (step * np.sqrt(2 * np.pi))
        self.mass = density @ self.mass * weights * bound
        self.places, self.time = places, time
        return far

    def _ended(self, bound: float, step: float) -> float:
        ended = normal((self.places - bound) / step) + normal((-bound - self.places) / step)
        return float(ended @ self.mass)


@cache
def _gauss_legendre() -> tuple[Floats, Floats]:
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return nodes, weights
