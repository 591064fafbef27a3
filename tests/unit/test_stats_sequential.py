"""Levels at several looks, against published boundaries and against another way of integrating."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.stats.sequential import levels


def boundaries(looks: tuple[int, ...], alpha: float = 0.05) -> list[float]:
    return [float(stats.norm.ppf((1 + level) / 2)) for level in levels(looks, alpha)]


# Two-sided, alpha 0.05, equally spaced looks: Lan and DeMets' programs (ldbounds, function 1).
@pytest.mark.parametrize(
    "published",
    [
        (1.9600,),
        (2.9626, 1.9686),
        (3.7103, 2.5114, 1.9930),
        (4.3326, 2.9631, 2.3590, 2.0141),
        (4.8769, 3.3569, 2.6803, 2.2898, 2.0310),
    ],
)
def test_boundaries_are_those_published(published: tuple[float, ...]) -> None:
    looks = tuple(range(1, len(published) + 1))
    assert boundaries(looks) == pytest.approx(published, abs=2e-4)


@pytest.mark.parametrize(("looks", "alpha"), [((8, 16, 32), 0.05), ((4, 5, 30), 0.01), ((10, 11), 0.2)])
def test_all_looks_together_are_wrong_as_often_as_said(looks: tuple[int, ...], alpha: float) -> None:
    bounds = np.array(boundaries(looks, alpha))
    covariance = [[np.sqrt(min(i, j) / max(i, j)) for i in looks] for j in looks]
    inside = stats.multivariate_normal(cov=covariance).cdf(bounds, lower_limit=-bounds)
    assert 1 - inside == pytest.approx(alpha, abs=2e-4)


@settings(deadline=None, max_examples=15)
@given(st.sets(st.integers(1, 40), min_size=2, max_size=5), st.floats(0.001, 0.2))
def test_no_look_asks_for_less_than_a_single_one_would(looks: set[int], alpha: float) -> None:
    found = levels(sorted(looks), alpha)
    assert len(found) == len(looks) and all(1 - alpha - 1e-9 < level < 1 for level in found)
    spent = 4 * stats.norm.sf(stats.norm.ppf(1 - alpha / 4) / np.sqrt(min(looks) / max(looks)))
    assert 1 - found[0] == pytest.approx(max(spent, 1e-12), rel=1e-3)
    assert levels([3 * look for look in sorted(looks)], alpha) == pytest.approx(found)


def test_one_look_is_an_ordinary_interval() -> None:
    assert levels((8,)) == pytest.approx((0.95,))


@pytest.mark.parametrize(
    ("looks", "alpha"), [((), 0.05), ((8, 8), 0.05), ((16, 8), 0.05), ((0, 8), 0.05), ((8,), 0.0), ((8,), 1.0)]
)
def test_looks_that_do_not_increase_are_refused(looks: tuple[int, ...], alpha: float) -> None:
    with pytest.raises(ValueError, match="increase"):
        levels(looks, alpha)
