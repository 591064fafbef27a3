"""Whether a night is worse than those before: candidate, confirmation, host incident. Pure; higher is better.

Two stages, because one cannot do both: a bound that misses nothing cries wolf in noisy series, and one that does not
misses. What falls below the cheap bound is measured again, interleaved with the last good state, and only that
convicts. docs/method.md tells what the simulation of it found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from bench.stats.distributions import Floats, positive, signed_rank_tails

WINDOW = 30
"""Nights that a night is held against."""
FLOOR_RATIO = 0.02
SPREADS = 3.0
MAD_TO_SD = 1.4826
"""The median absolute deviation of normal noise times this is its standard deviation; "MAD" is meant so scaled."""
PAIRS = 8
CONFIRM_P = 0.01
CONFIRM_RATIO = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A night that fell too far: `ratio` is tonight / median, and below `bound_ratio`, of so many `nights` before."""

    ratio: float
    bound_ratio: float
    nights: int


def candidate(nights: Sequence[float], tonight: float, *, least_nights: int = 5) -> Candidate | None:
    """`tonight` held against up to the last 30 of `nights` (oldest first, without it); None where it is no candidate.

    None too where there are fewer than `least_nights` to hold it against. ValueError for values not positive.
    """
    window = positive(nights[-WINDOW:])
    ratio_of = positive([tonight])[0]
    if len(window) < max(1, least_nights):
        return None
    centre, bound = bounds(window)
    ratio = float(ratio_of / centre)
    return Candidate(ratio=ratio, bound_ratio=float(bound), nights=len(window)) if ratio < bound else None


def bounds(windows: Floats) -> tuple[Floats, Floats]:
    """(median, smallest ratio to it that is no candidate) of nights along the last axis."""
    centre = np.median(windows, axis=-1)
    spread = MAD_TO_SD * np.median(np.abs(windows - centre[..., None]), axis=-1) / centre
    return centre, 1 - np.maximum(SPREADS * spread, FLOOR_RATIO)


def confirmed(ratios: Sequence[float]) -> bool:
    """Whether interleaved pairs, new / old, show that the new is slower: signed ranks one-sided, and 1 % at least.

    Exact, so that with unchanged software at most 2 of 256 eight pairs are confirmed, whatever the noise, as long as
    either of a pair could have been the other. Fewer than seven pairs can confirm nothing.
    """
    values = positive(ratios)
    if not len(values) or np.median(values) >= CONFIRM_RATIO:
        return False
    at_most, _ = signed_rank_tails(np.log(values))
    return at_most < CONFIRM_P


def moved_together(ratios: Mapping[str, float], *, share: float = 0.4, least: int = 3) -> float | None:
    """Median of the ratios, tonight / median, of those series of one host that moved together; None where few did.

    Together: at least `share` of all series, and `least` of them, by more than 2 % in one direction.
    """
    values = positive(list(ratios.values()))
    down, up = values[values < 1 - FLOOR_RATIO], values[values > 1 + FLOOR_RATIO]
    moved = down if len(down) >= len(up) else up
    enough = len(moved) >= max(1, least) and len(moved) >= share * len(values) - 1e-9
    return median(moved.tolist()) if enough else None
