"""Launches in several modes, samples that drift or step."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.stats.shape import modes, unsteady

LOW, HIGH = [100.0, 100.3, 99.8, 100.1], [106.0, 106.2, 105.9]


def test_modes_are_cut_at_wide_gaps() -> None:
    assert modes([*HIGH, *LOW]) == [sorted(LOW), sorted(HIGH)]
    assert modes([*LOW, *HIGH, 120.0]) == [sorted(LOW), sorted(HIGH), [120.0]]
    assert modes(LOW) is None


def test_a_gap_within_the_margin_is_no_mode() -> None:
    values = [100.0, 100.1, 100.2, 101.5, 101.6]
    assert modes(values) is None
    assert modes(values, margin=0.01) == [values[:3], values[3:]]


def test_wide_gaps_everywhere_are_spread_not_modes() -> None:
    assert modes([100.0, 110.0, 121.0, 133.0, 146.0]) is None


@pytest.mark.parametrize("few", [[], [1.0], [1.0, 2.0], [1.0, 1.0, 2.0]])
def test_three_launches_show_no_modes(few: list[float]) -> None:
    assert modes(few) is None


def test_two_values_only_are_two_modes() -> None:
    assert modes([1.0, 1.0, 2.0, 2.0, 2.0]) == [[1.0, 1.0], [2.0, 2.0, 2.0]]


@given(st.lists(st.floats(0.5, 2.0), max_size=12), st.sampled_from([0.25, 4.0]))
def test_modes_keep_every_launch_in_any_unit(values: list[float], unit: float) -> None:
    found = modes(values)
    assert found is None or ([*chain(*found)] == sorted(values) and len(found) > 1)
    other = modes([unit * value for value in values])
    assert (found is None) == (other is None)


def noise(seed: int, n: int, sd: float = 0.005) -> np.ndarray:
    return np.asarray(np.exp(np.random.default_rng(seed).normal(0, sd, n)))


@pytest.mark.parametrize("n", [5, 8, 50])
@pytest.mark.parametrize("direction", [1, -1])
def test_steps_and_drifts_are_seen(n: int, direction: int) -> None:
    step = np.where(np.arange(n) < n // 2, 1.0, 1.1) ** direction
    drift = np.linspace(1.0, 1.1, n) ** direction
    assert unsteady((step * noise(1, n, 0.003)).tolist())
    assert unsteady((drift * noise(2, n, 0.003)).tolist())
    assert unsteady(step.tolist()), "also without any noise"


def test_one_interruption_is_none() -> None:
    for place in range(6):
        values = noise(3, 6)
        values[place] *= 0.7
        assert not unsteady(values.tolist())


def test_small_changes_and_few_samples_tell_nothing() -> None:
    assert not unsteady((np.linspace(1.0, 1.015, 30) * noise(4, 30, 0.0005)).tolist())
    assert not unsteady([1.0, 1.0, 2.0, 2.0]) and not unsteady([]) and not unsteady([1.0] * 9)


@pytest.mark.parametrize("n", [5, 20])
def test_noise_is_called_unsteady_in_one_launch_of_a_hundred_at_most(n: int) -> None:
    samples = np.exp(np.random.default_rng(n).normal(0, 0.05, (1000, n)))
    flagged = sum(unsteady(values.tolist()) for values in samples)
    assert 0 < flagged <= 15


@given(st.lists(st.floats(0.5, 2.0), min_size=5, max_size=12))
def test_backwards_is_as_unsteady(values: list[float]) -> None:
    assert unsteady(values) == unsteady(values[::-1])


def test_values_that_cannot_be_are_refused() -> None:
    for judge in (modes, unsteady):
        with pytest.raises(ValueError, match="positive"):
            judge([1.0, 1.0, 1.0, 1.0, 0.0])
