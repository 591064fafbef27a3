"""The rule of the night: candidate, confirmation, host incident."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.stats.nights import PAIRS, WINDOW, Candidate, candidate, confirmed, moved_together

QUIET = [100.0 + 0.1 * (i % 5 - 2) for i in range(40)]
NOISY = [100.0 + (-1) ** i * 2 for i in range(40)]  # MAD 2


def test_the_floor_holds_where_nights_hardly_differ() -> None:
    assert candidate(QUIET, 98.1) is None
    assert candidate(QUIET, 97.9) == Candidate(ratio=pytest.approx(0.979), bound_ratio=0.98, nights=WINDOW)


def test_in_noise_three_spreads_are_allowed() -> None:
    bound = 100 - 3 * 1.4826 * 2
    assert candidate(NOISY, bound + 0.01) is None
    found = candidate(NOISY, bound - 0.01)
    assert found is not None and found.bound_ratio == pytest.approx(bound / 100)


def test_faster_is_no_candidate() -> None:
    assert candidate(QUIET, 300.0) is None


def test_only_the_last_thirty_count() -> None:
    old, new = [200.0] * 50, [100.0] * WINDOW
    assert candidate([*old, *new], 99.0) is None
    assert candidate([*old, *new[:10]], 99.0) is not None


def test_too_few_nights_tell_nothing() -> None:
    assert candidate(QUIET[:4], 1.0) is None
    assert candidate([], 1.0, least_nights=0) is None
    assert (found := candidate(QUIET[:5], 1.0)) is not None and found.nights == 5
    assert candidate(QUIET[:2], 1.0, least_nights=2) is not None


@given(st.lists(st.floats(0.5, 2.0), min_size=5, max_size=40), st.floats(0.1, 3.0), st.sampled_from([0.25, 8.0]))
def test_a_candidate_is_below_its_bound_in_any_unit(nights: list[float], tonight: float, unit: float) -> None:
    found = candidate(nights, tonight)
    assert candidate([unit * night for night in nights], unit * tonight) == found
    assert found is None or found.ratio < found.bound_ratio <= 0.98
    assert found is None or candidate(nights, tonight / 2) is not None


def test_confirmation_needs_nearly_all_pairs() -> None:
    down = [0.97, 0.96, 0.975, 0.965, 0.98, 0.955, 0.972]
    assert confirmed([*down, 0.97]) and confirmed([*down, 1.001])
    assert not confirmed([*down, 1.1]) and not confirmed([*down[1:], 1.001, 1.002])
    assert confirmed(down) and not confirmed(down[1:]), "with six pairs p is 1 / 64 at best"
    assert not confirmed([]) and not confirmed([1.0] * 8) and not confirmed([1 / ratio for ratio in down])


def test_a_change_below_one_percent_is_not_confirmed_however_sure() -> None:
    assert not confirmed([0.9901 + 1e-5 * i for i in range(8)])
    assert confirmed([0.9899 - 1e-5 * i for i in range(8)])


def test_what_might_as_well_be_the_other_way_round_is_confirmed_in_two_of_256() -> None:
    sizes = [0.02, 0.021, 0.0215, 0.03, 0.033, 0.04, 0.1, 0.2]
    ways = [
        confirmed([math.exp(sign * size) for sign, size in zip(signs, sizes, strict=True)])
        for signs in product((-1, 1), repeat=PAIRS)
    ]
    assert sum(ways) == 2


@settings(max_examples=50)
@given(st.lists(st.floats(0.8, 1.2), min_size=8, max_size=8), st.randoms())
def test_slower_pairs_never_acquit(ratios: list[float], random: object) -> None:
    if confirmed(ratios):
        assert confirmed([0.98 * ratio for ratio in ratios])
    assert confirmed(sorted(ratios)) == confirmed(ratios)


def test_a_host_moved_where_enough_series_did() -> None:
    assert moved_together({"a": 0.9, "b": 0.88, "c": 0.91, "d": 1.0, "e": 1.01}) == 0.9
    assert moved_together({"a": 1.1, "b": 1.2, "c": 1.15, "d": 0.9}) == 1.15
    assert moved_together({"a": 0.9, "b": 0.9}) is None, "two of two are no crowd"
    assert moved_together({"a": 0.9, "b": 0.9}, least=2) == 0.9
    assert moved_together({}) is None and moved_together({}, least=0) is None


def test_a_share_is_a_share_of_all_series_and_of_one_direction() -> None:
    still = {f"still{i}": 1.0 for i in range(5)}
    down = {f"down{i}": 0.9 for i in range(3)}
    assert moved_together({**still, **down}) is None  # 3 of 8
    assert moved_together({**dict(list(still.items())[:4]), "other": 0.981, **down}) is None
    assert moved_together({**dict(list(still.items())[:4]), **down}) == 0.9  # 3 of 7
    assert moved_together({**down, "down4": 0.9, "other": 1.1, **still}) == 0.9  # 4 of 10
    assert moved_together({**down, "up1": 1.1, "up2": 1.1, "x": 1.0, "y": 1.0, "z": 1.0}) is None


@pytest.mark.parametrize("broken", [0.0, -1.0, math.nan, math.inf])
def test_nights_that_cannot_be_are_refused(broken: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        candidate([1.0] * 5 + [broken], 1.0)
    with pytest.raises(ValueError, match="positive"):
        candidate([1.0] * 5, broken)
    with pytest.raises(ValueError, match="positive"):
        confirmed([1.0] * 7 + [broken])
    with pytest.raises(ValueError, match="positive"):
        moved_together({"a": broken})
