"""scripts/nightly_noise, reduced: the nightly rule and the intervals under the noise that they were chosen for.

The whole of it, with ten seeds, stands in docs/method.md.
"""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bench.stats.comparison import compare
from bench.stats.nights import candidate

ROOT = Path(__file__).parents[2]
SEEDS = range(2)


def script() -> ModuleType:
    loader = SourceFileLoader("nightly_noise", str(ROOT / "scripts" / "nightly_noise"))
    spec = spec_from_loader("nightly_noise", loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules["nightly_noise"] = module  # dataclasses look their module up
    loader.exec_module(module)
    return module


simulated = script()
MODELS = {noise.name: noise for noise in (*simulated.MODELS, *simulated.BY_LAUNCH)}


@pytest.mark.parametrize("name", MODELS)
def test_false_alarms_are_rare(name: str) -> None:
    told = simulated.alarms(MODELS[name], SEEDS, 100)
    assert told.nights == 18_000
    assert 100 * simulated.at_most(told.confirmed, told.nights) <= 0.2
    if name in ("bimodal", "spiky"):
        assert told.candidates > 500, "it is the confirmation that keeps these quiet"


@pytest.mark.parametrize(
    ("name", "per_cent"), [("quiet", 11.6), ("normal", 23.0), ("AR(1)", 14.7), ("bimodal", 22.4), ("spiky", 16.0)]
)
def test_the_noise_of_launches_is_that_which_the_models_were_first_used_with(name: str, per_cent: float) -> None:
    """Nights whose five launches Welch's test finds slower than the night before: section 3.3, table (a)."""
    told = simulated.alarms(MODELS[name], SEEDS, 100)
    assert 100 * told.below / told.nights == pytest.approx(per_cent, abs=1.5)


@pytest.mark.parametrize("name", [noise.name for noise in simulated.MODELS])
def test_losses_are_found_within_five_nights(name: str) -> None:
    """700 series a seed: two percentage points are left for chance."""
    trials = len(SEEDS) * 700
    assert simulated.losses_found(MODELS[name], SEEDS, 700, 0.05) / trials >= 0.95
    assert simulated.losses_found(MODELS[name], SEEDS, 700, 0.03) / trials >= 0.68


@pytest.mark.parametrize("n", [3, 4, 5, 8, 19, 20])
def test_what_is_called_95_percent_covers_93_to_97(n: int) -> None:
    found = simulated.coverage(simulated.LOG_NORMAL, n, SEEDS, 4000)
    assert all(0.93 <= share <= 0.97 for share in (found.compared, found.pairs, found.log_t))


def test_launches_of_one_session_know_nothing_of_other_nights() -> None:
    found = simulated.coverage(MODELS["normal"], 5, SEEDS, 2000)
    assert found.one_session < 0.7 and found.compared > 0.93


def test_looking_often_at_95_percent_is_wrong_more_often_and_levels_mend_it() -> None:
    naive, spent = simulated.wrong_looks(SEEDS, 4000)
    assert naive > 0.09 and 0.04 < spent < 0.06


def test_the_script_judges_as_the_functions_do() -> None:
    rng = np.random.default_rng(0)
    values = np.exp(0.02 * rng.standard_t(2, (40, 45)))
    for night in (5, 29, 44):
        mask = simulated._candidates(values, night)
        assert mask.tolist() == [candidate(row[:night].tolist(), row[night]) is not None for row in values]
        assert mask.any() and not mask.all()
    for n in (3, 20):
        a, b = np.exp(0.02 * rng.standard_normal((2, 10, n)))
        for found, paired in (
            (simulated.two_groups(np.log(a), np.log(b), 0.95), False),
            (simulated.one_group(np.log(b / a), 0.95), True),
        ):
            one = [compare(x.tolist(), y.tolist(), paired=paired) for x, y in zip(a, b, strict=True)]
            assert np.exp(found.low) == pytest.approx([each.low for each in one])
            assert np.exp(found.high) == pytest.approx([each.high for each in one])


def test_noise_is_what_it_says() -> None:
    rng = np.random.default_rng(1)
    drawn = MODELS["AR(1)"].nights(rng, 4000, 40)
    assert drawn.std(axis=0) == pytest.approx(0.01, rel=0.1)
    assert np.corrcoef(drawn[:, 20], drawn[:, 21])[0, 1] == pytest.approx(0.6, abs=0.05)
    for name, share, least, most in (("bimodal", 0.15, 0.04, 0.04), ("spiky", 0.05, 0.05, 0.25)):
        quiet = simulated.Noise(name="", night_sd=0.0, launch_sd=0.0, dips=share, depths=(least, most))
        nights = quiet.nights(rng, 1000, 50)
        dips = -np.expm1(nights[nights < 0])
        assert len(dips) / nights.size == pytest.approx(share, rel=0.1)
        assert least - 1e-9 <= dips.min() and dips.max() <= most + 1e-9
        assert nights.mean() == pytest.approx(MODELS[name].mean(), rel=0.1)


def test_bounds_are_those_of_clopper_and_pearson() -> None:
    assert simulated.at_most(0, 9000) == pytest.approx(1 - 0.05 ** (1 / 9000))
    assert simulated.at_most(3, 10) == pytest.approx(0.6066, abs=1e-4)
    assert simulated.at_least(10, 10) == pytest.approx(0.05**0.1) and simulated.at_most(10, 10) == 1
