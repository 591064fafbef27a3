"""What a mean would hide: launches in several modes, samples that drift or step. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.stats.distributions import positive, t_outside

GAP_MULTIPLE = 3.0
LEAST_SAMPLES = 5
LEAST_SIDE = 2
"""Samples on either side of a step: one alone is an interruption, which the median leaves out."""
UNSTEADY_P = 0.01
UNSTEADY_RATIO = 0.02


def modes(values: Sequence[float], *, margin: float = 0.02) -> list[list[float]] | None:
    """The groups, ascending, that launches fall into; None for one only, and for fewer than four launches.

    Cut at each gap above three times the median gap of the sorted launches and above `margin`, as a ratio. A group of
    one is a launch that went astray, or a mode that is rare: the caller sees its size.
    """
    ordered = np.sort(positive(values))
    gaps = np.diff(np.log(ordered))
    if len(gaps) < 3:
        return None  # of two gaps none is above three times their median
    cuts = np.flatnonzero((gaps > GAP_MULTIPLE * np.median(gaps)) & (gaps > np.log1p(margin))) + 1
    return [group.tolist() for group in np.split(ordered, cuts)] if len(cuts) else None


def unsteady(values: Sequence[float]) -> bool:
    """Whether the samples of one launch, in their order, drift or step by more than 2 % and by more than their noise.

    A line and a step at each place are fitted to the logs; the best counts where its t test passes at 1 % divided by
    the number of shapes tried. False for fewer than five samples: they cannot tell.
    """
    logs = np.log(positive(values))
    n = len(logs)
    if n < LEAST_SAMPLES:
        return False
    line = np.linspace(0.0, 1.0, n)
    steps = (np.arange(n) >= place for place in range(LEAST_SIDE, n - LEAST_SIDE + 1))
    shapes = np.array([line, *steps], dtype=float)
    shapes -= shapes.mean(axis=1, keepdims=True)
    logs = logs - logs.mean()
    size = (shapes**2).sum(axis=1)
    change = shapes @ logs / size
    left = np.maximum((logs**2).sum() - change**2 * size, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = change / np.sqrt(left / (n - 2) / size)
    clear = t_outside(t, n - 2) < UNSTEADY_P / len(shapes)
    return bool((clear & (np.abs(change) > np.log1p(UNSTEADY_RATIO))).any())
