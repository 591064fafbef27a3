"""Verdicts over launches: what they promise, against scipy's intervals and by properties."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.stats import intervals
from bench.stats.comparison import Comparison, compare

values = st.lists(st.floats(0.5, 2.0), min_size=0, max_size=24)
pairs = st.lists(st.tuples(st.floats(0.5, 2.0), st.floats(0.5, 2.0)), min_size=0, max_size=24)
BASE = [100.0, 100.4, 99.7, 100.1, 99.9]


def scaled(by: float, values: list[float] = BASE) -> list[float]:
    return [by * value for value in values]


@pytest.mark.parametrize(
    ("by", "higher_is_better", "verdict"),
    [
        (1.05, True, "better"),
        (0.95, True, "worse"),
        (1.05, False, "worse"),
        (0.95, False, "better"),
        (1.0, True, "same"),
        (1.012, True, "same"),
        (1.0185, True, "inconclusive"),  # surely faster, but whether by less than the margin is open
    ],
)
def test_verdicts(by: float, higher_is_better: bool, verdict: str) -> None:
    assert compare(BASE, scaled(by), higher_is_better=higher_is_better).verdict == verdict


def test_a_clear_change_within_the_margin_is_the_same_and_the_margin_can_be_told() -> None:
    found = compare(BASE, scaled(1.01))
    assert found.low is not None and found.low > 1 and found.verdict == "same"
    assert compare(BASE, scaled(1.01), margin=0.005).verdict == "better"


def test_the_margin_is_a_ratio_in_both_directions() -> None:
    assert compare([1.0] * 5, [1.0199] * 5).verdict == "same" == compare([1.0] * 5, [1 / 1.0199] * 5).verdict
    assert compare([1.0] * 5, [1.0201] * 5).verdict == "better"
    assert compare([1.0] * 5, [1 / 1.0201] * 5).verdict == "worse"


def test_few_launches_have_the_t_intervals_of_scipy() -> None:
    rng = np.random.default_rng(1)
    a, b = np.exp(rng.normal(0, 0.02, 6)), np.exp(rng.normal(0.03, 0.05, 6))
    for paired, test in (
        (False, stats.ttest_ind(np.log(b), np.log(a), equal_var=False)),
        (True, stats.ttest_rel(np.log(b), np.log(a))),
    ):
        found, expected = compare(a.tolist(), b.tolist(), paired=paired, level=0.9), test.confidence_interval(0.9)
        assert (found.low, found.high) == pytest.approx((math.exp(expected.low), math.exp(expected.high)))
        assert found.ratio == pytest.approx(stats.gmean(b) / stats.gmean(a))
        assert found.method == ("t interval of logs, of pairs" if paired else "t interval of logs, Welch")


def test_from_twenty_on_one_launch_that_went_astray_does_not_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    a, b = np.exp(rng.normal(0, 0.01, 20)), np.exp(rng.normal(0.05, 0.01, 20))
    b[3] /= 10
    for paired in (False, True):
        found = compare(a.tolist(), b.tolist(), paired=paired)
        assert found.method.startswith("Hodges-Lehmann") and found.verdict == "better"
        assert found.shift == pytest.approx(found.ratio) == pytest.approx(math.exp(0.05), rel=0.01)
        assert compare(a[:19].tolist(), b[:19].tolist(), paired=paired).verdict == "inconclusive"


def test_the_hodges_lehmann_bounds_are_where_the_test_begins_to_reject() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 1, 20), rng.normal(0.5, 1, 22)
    found = intervals.two_groups(a, b, 0.95)
    for bound, direction in ((found.low, -1), (found.high, 1)):
        inside, outside = (
            stats.mannwhitneyu(b - bound - step * direction, a, method="exact").pvalue for step in (-1e-9, 1e-9)
        )
        assert outside < 0.05 < inside


def test_a_bound_of_exactly_one_does_not_exclude_one_in_any_unit() -> None:
    sides = [(1, 2), (6, 3)] * 6 + [(1, 9)] * 8
    found = [compare([unit * a for a, _ in sides], [unit * b for _, b in sides], paired=True) for unit in (1, 3, 0.1)]
    assert {(each.low, each.verdict) for each in found} == {(1.0, "inconclusive")}


def test_a_level_that_ranks_cannot_reach_is_left_to_t() -> None:
    rng = np.random.default_rng(4)
    a, b = np.exp(rng.normal(0, 0.01, (2, 20)))
    assert compare(a.tolist(), b.tolist(), paired=True, level=1 - 1e-9).method == "t interval of logs, of pairs"


def test_too_few_launches_have_no_interval() -> None:
    nothing = compare([], BASE)
    assert (nothing.verdict, nothing.ratio, nothing.p_value, nothing.smallest_p, nothing.shift) == (
        "inconclusive",
        *[None] * 4,
    )
    one = compare([100.0], BASE)
    assert (one.verdict, one.low, one.high, one.more) == ("inconclusive", None, None, None)
    assert one.ratio == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("n", "paired", "smallest"),
    [(3, False, 0.1), (4, False, 2 / 70), (5, False, 2 / 252), (6, True, 2 / 64), (8, True, 2 / 256), (1, True, 1.0)],
)
def test_the_smallest_p_is_reached_by_sides_that_do_not_overlap(n: int, paired: bool, smallest: float) -> None:
    side = [1 + 0.01 * i**2 for i in range(n)]
    found = compare(side, [3 + 0.1 * i + value for i, value in enumerate(side)], paired=paired)
    assert found.smallest_p == pytest.approx(smallest) == found.p_value


def test_more_launches_are_asked_for_until_that_many_decide() -> None:
    rng = np.random.default_rng(6)
    for paired in (False, True):
        decided, trials = 0, 120
        for _ in range(trials):
            a, b = np.exp(rng.normal(0, 0.02, (2, 4)))
            told = compare(a.tolist(), b.tolist(), paired=paired)
            if told.verdict != "inconclusive" or told.more is None or told.more > 400:
                decided += 1
                continue
            spread, shift = (np.log(side).std(ddof=1) for side in (a, b)), math.log(told.ratio or 1)
            of_a, of_b = spread
            if paired:
                of_a, of_b = 0.0, np.log(b / a).std(ddof=1)
            n = 4 + told.more
            again = compare(
                np.exp(rng.normal(0, of_a, n)).tolist(), np.exp(rng.normal(shift, of_b, n)).tolist(), paired=paired
            )
            decided += again.verdict != "inconclusive"
        assert 0.7 < decided / trials < 0.97


def test_what_looks_the_same_needs_an_interval_within_the_margin() -> None:
    noisy = [97.0, 100.0, 103.0]
    more = compare(noisy, noisy).more
    assert more is not None
    spread = stats.tstd(np.log(noisy))
    assert (2.0 + 0.84) * spread * np.sqrt(2 / (3 + more)) == pytest.approx(math.log(1.02), rel=0.05)


def test_more_is_none_where_it_cannot_be_told() -> None:
    assert compare(BASE, scaled(1.05)).more is None
    assert compare([1.0, 5.0, 0.2], [1.02, 5.2, 0.2]).more is None  # tens of thousands


def test_two_launches_at_a_level_of_a_first_look_are_finite() -> None:
    found = compare([1e-300, 1e300], [1e300, 1e-300], paired=True, level=0.999999)
    assert found.low == 0.0 and found.high is not None and math.isfinite(found.high)


@settings(deadline=None, max_examples=150)
@given(values, values)
def test_the_other_way_round_is_the_inverse(a: list[float], b: list[float]) -> None:
    there, back = compare(a, b), compare(b, a)
    opposite = {"better": "worse", "worse": "better"}
    assert back.verdict == opposite.get(there.verdict, there.verdict)
    for mine, other in ((there.ratio, back.ratio), (there.low, back.high), (there.shift, back.shift)):
        assert (mine is None) == (other is None)
        assert mine is None or other is None or mine * other == pytest.approx(1)
    assert there.p_value == (back.p_value if back.p_value is None else pytest.approx(back.p_value))
    assert (there.smallest_p, there.n_a, there.n_b) == (back.smallest_p, back.n_b, back.n_a)


@settings(deadline=None, max_examples=150)
@given(pairs, st.booleans())
def test_numbers_agree_with_each_other(sides: list[tuple[float, float]], paired: bool) -> None:
    a, b = [one for one, _ in sides], [other for _, other in sides]
    found = compare(a, b, paired=paired)
    assert (found.ratio is None) == (not sides) and (found.low is None) == (found.high is None) == (len(sides) < 2)
    if found.low is not None and found.high is not None and found.ratio is not None:
        assert found.low <= found.ratio * (1 + 1e-12) and found.ratio <= found.high * (1 + 1e-12)
        inside = found.low >= 1 / 1.02 and found.high <= 1.02
        apart = (found.low > 1 or found.high < 1) and not 1 / 1.02 <= found.ratio <= 1.02
        assert found.verdict == (
            "same" if inside else ("better" if found.ratio > 1 else "worse") if apart else "inconclusive"
        )
    if found.p_value is not None and found.smallest_p is not None:
        assert found.smallest_p - 1e-12 <= found.p_value <= 1
    assert found.more is None or (found.verdict == "inconclusive" and found.more > 0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=22), st.booleans(), st.randoms())
def test_neither_the_unit_nor_the_order_matters(sides: list[tuple[int, int]], paired: bool, random: object) -> None:
    before = compare([a for a, _ in sides], [b for _, b in sides], paired=paired)
    random.shuffle(sides)  # type: ignore[attr-defined]
    after = compare([4.0 * a for a, _ in sides], [4.0 * b for _, b in sides], paired=paired)
    assert close(before, after)


def close(one: Comparison, other: Comparison) -> bool:
    numbers = ("ratio", "low", "high", "shift", "p_value")
    same = replace(one, **dict.fromkeys(numbers)) == replace(other, **dict.fromkeys(numbers))
    return same and all(getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-6) for name in numbers)


@pytest.mark.parametrize(
    ("a", "b", "options"),
    [
        ([1.0, 0.0], BASE, {}),
        (BASE, [math.nan], {}),
        (BASE, BASE[:2], {"paired": True}),
        (BASE, BASE, {"margin": 0.0}),
        (BASE, BASE, {"margin": math.nan}),
        (BASE, BASE, {"level": 1 - 1e-16}),
        (BASE, BASE, {"level": 0.0}),
    ],
)
def test_what_cannot_be_compared_is_refused(a: list[float], b: list[float], options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be|pairs need"):
        compare(a, b, **options)  # type: ignore[arg-type]
