"""Exact tails of rank statistics, against enumeration and against scipy's own tests."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.reports import interval
from bench.stats import distributions
from bench.stats.distributions import rank_sum_order, rank_sum_tails, signed_rank_order, signed_rank_tails

ROOT = Path(__file__).parents[2]
few = st.lists(st.integers(-4, 4), min_size=1, max_size=7)  # small whole numbers: many ties and zeros


@settings(max_examples=60, deadline=None)
@given(few)
def test_signed_ranks_are_counted_over_all_signs(differences: list[int]) -> None:
    ranks = stats.rankdata(np.abs(differences))
    seen = sum(rank for rank, value in zip(ranks, differences, strict=True) if value > 0)
    signed = [rank for rank, value in zip(ranks, differences, strict=True) if value]
    sums = [
        sum(rank for rank, on in zip(signed, signs, strict=True) if on) for signs in product((0, 1), repeat=len(signed))
    ]
    expected = (np.mean([s <= seen for s in sums]), np.mean([s >= seen for s in sums]))
    assert signed_rank_tails(differences) == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(few, st.lists(st.integers(-4, 4), min_size=1, max_size=5))
def test_rank_sums_are_counted_over_all_choices(a: list[int], b: list[int]) -> None:
    ranks = stats.rankdata([*a, *b])
    seen = ranks[len(a) :].sum()
    sums = [sum(chosen) for chosen in combinations(ranks, len(b))]
    expected = (np.mean([s <= seen for s in sums]), np.mean([s >= seen for s in sums]))
    assert rank_sum_tails(a, b) == pytest.approx(expected)


@pytest.mark.parametrize("n", [5, 20, 50])
def test_scipy_says_the_same(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.standard_normal(n), 0.4 + rng.standard_normal(n)
    assert signed_rank_tails(b - a)[1] == pytest.approx(
        stats.wilcoxon(b, a, alternative="greater", method="exact").pvalue
    )
    assert rank_sum_tails(a, b)[1] == pytest.approx(
        stats.mannwhitneyu(b, a, alternative="greater", method="exact").pvalue
    )


def test_many_launches_are_normal_and_go_on_where_counting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    place = np.arange(100)
    first = np.isin(place % 4, (0, 3))  # neither side is ahead: there the normal curve fits best
    samples = [
        (signed_rank_tails, (np.where(first, 1, -1) * (place + 1.0),), 1e-5),
        (rank_sum_tails, (place[first], place[~first]), 1e-5),
        (signed_rank_tails, (np.where(place % 8, 1, -1) * (place % 40 + 1.0),), 2e-3),
        (rank_sum_tails, (place[:40] // 3, place[20:80] // 3), 2e-3),
    ]
    exact = [tails(*of) for tails, of, _ in samples]
    orders = [(signed_rank_order.__wrapped__, (100, 0.9)), (rank_sum_order.__wrapped__, (40, 60, 0.9))]
    exact_orders = [order(*of) for order, of in orders]
    monkeypatch.setattr(distributions, "EXACT_LAUNCHES", 0)
    for (tails, of, within), expected in zip(samples, exact, strict=True):
        assert tails(*of) == pytest.approx(expected, abs=within)
    assert [order(*of) for order, of in orders] == pytest.approx(exact_orders, abs=1)
    assert signed_rank_tails(np.zeros(9)) == pytest.approx((1, 1), abs=0.2)


def test_orders_are_the_widest_that_still_cover() -> None:
    """Conover's tables: w(0.025) of 20 is 53 and of 8 is 4; w(0.025) of Mann and Whitney with 20 and 20 is 128."""
    assert (signed_rank_order(20, 0.95), signed_rank_order(8, 0.95), rank_sum_order(20, 20, 0.95)) == (53, 4, 128)
    assert (signed_rank_order(5, 0.95), rank_sum_order(3, 3, 0.95)) == (0, 0)
    assert signed_rank_order(6, 1 - 2 / 2**6) == 1


def test_t_is_that_of_the_tables_also_where_freedom_is_no_whole_number() -> None:
    for freedom in (1, 4, 30):
        assert distributions.t_quantile(0.95, freedom) == pytest.approx(interval.t_quantile(0.95, freedom))
    assert distributions.t_quantile(0.9, 2.5) == pytest.approx(stats.t.ppf(0.95, 2.5))
    assert distributions.t_outside(distributions.t_quantile(0.9, 2.5), 2.5) == pytest.approx(0.1)


@pytest.mark.parametrize("broken", [[0.0], [-1.0], [math.nan], [math.inf], [[1.0]]])
def test_values_that_no_launch_can_have_are_refused(broken: list[float]) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        distributions.positive(broken)


def execute(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_scipy_one_line_says_what_to_install() -> None:
    program = "import sys; sys.modules['scipy'] = None\n" + (
        "from bench.errors import PrerequisiteError\n"
        "try:\n import bench.stats.comparison\nexcept PrerequisiteError as error:\n print(error)"
    )
    assert "scipy is missing" in execute(program) and "evenbench[analysis]" in execute(program)


def test_what_measures_and_prints_tables_loads_no_scipy() -> None:
    program = "import sys, bench.cli.run, bench.cli.table, bench.worker, bench.runner\nprint('scipy' in sys.modules)"
    assert execute(program) == "False\n"
