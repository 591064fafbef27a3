"""Figures computed from raw samples, against numbers worked out by hand."""

from __future__ import annotations

import json
import statistics
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.reports.interval import t_interval, t_quantile
from bench.reports.metrics import METRICS
from bench.reports.summary import render_json, summarize
from bench.results.schema import Sample
from bench.types import Workload
from tests.records import CEILING, FACTS, identity, record, samples

RATES = ("pp_tokens_per_s", "tg_tokens_per_s", "pg_tokens_per_s", "decode_tokens_per_s")


@pytest.mark.parametrize(
    ("workload", "figures"),
    [
        ("pp512", {"pp_tokens_per_s": 256.0}),
        ("tg4", {"tg_tokens_per_s": 2.0, "tpot_s": 0.5}),
        ("pp512+tg4", {"pg_tokens_per_s": 516 / 4, "tpot_s": 0.5}),
        ("512/5", {"pp_tokens_per_s": 256.0, "decode_tokens_per_s": 2.0, "ttft_s": 2.0, "tpot_s": 0.5}),
    ],
)
def test_each_workload_has_its_own_figures_and_no_others(workload: str, figures: dict[str, float]) -> None:
    summary = summarize(record(workload))
    have = {key: summary[key].value for key in (*RATES, "ttft_s", "tpot_s") if summary[key].value is not None}
    assert have == figures


def test_batch_counts_every_row() -> None:
    for name, key, alone in (("tg4", "tg_tokens_per_s", 2.0), ("pp512", "pp_tokens_per_s", 256.0)):
        base = record(name).identity.workload
        shape = msgspec.convert({**msgspec.to_builtins(base), "batch": 3}, type(base))
        who = msgspec.structs.replace(identity(name), workload=shape)
        assert summarize(record(name, who=who))[key].value == 3 * alone


def test_tg_counts_all_steps_but_tpot_starts_at_the_first_id() -> None:
    summary = summarize(record(samples=[Sample(step_s=[5.0, 1.0, 1.0, 1.0])]))
    assert summary["tg_tokens_per_s"].value == 0.5
    assert summary["tpot_s"].value == 1.0


def test_the_value_of_a_launch_is_its_median() -> None:
    steps = [1.0, 2.0, 40.0]
    value = summarize(record(samples=[Sample(step_s=[s] * 4) for s in steps]))["tg_tokens_per_s"]
    rates = [1.0, 0.5, 0.025]
    assert (value.value, value.n_samples, value.low, value.high) == (0.5, 3, None, None)
    assert value.within_cv == pytest.approx(statistics.stdev(rates) / statistics.fmean(rates))


def test_an_interval_comes_from_launches_not_from_samples() -> None:
    launches = [record(samples=samples(step_s=1 / rate, count=50)) for rate in (2.0, 2.2, 2.4)]
    value = summarize(launches)["tg_tokens_per_s"]
    assert value.value == pytest.approx(2.2)
    assert value.n_samples == 150
    assert value.within_cv == pytest.approx(0.0, abs=1e-12)
    # scipy.stats.t.interval(0.95, 2, 2.2, 0.2 / sqrt(3))
    assert (value.low, value.high) == (pytest.approx(1.703172458), pytest.approx(2.696827542))


def test_nothing_measured_is_none_never_zero() -> None:
    summary = summarize(record(samples=[], facts=None, ceiling=None, gate=None))
    assert all(v.value is None and v.within_cv is None and v.n_samples == 0 for v in summary.values.values())
    one = summarize(record(samples=samples(count=1)))["tg_tokens_per_s"]
    assert one.value == 2.0 and one.within_cv is None


def test_a_time_of_zero_gives_no_rate() -> None:
    assert summarize(record(samples=[Sample(step_s=[0.0] * 4)]))["tg_tokens_per_s"].value is None
    assert summarize(record("pp512", samples=[Sample(prefill_s=0.0)]))["pp_tokens_per_s"].value is None


def test_samples_of_a_later_kind_are_left_alone() -> None:
    assert summarize(record(samples=[*samples(), Sample(kind="request")]))["tg_tokens_per_s"].n_samples == 3


@pytest.mark.parametrize(("percent", "floor"), [(50, 11), (90, 64), (95, 130), (99, 662)])
def test_percentiles_only_above_their_floor(percent: int, floor: int) -> None:
    def of(count: int) -> Any:
        shape = Workload(name="x", prompt_tokens=4, new_tokens=count + 1, first_id_from_prompt=True)
        gaps = [float(i) for i in range(count)]
        made = record(who=identity(shape), samples=[Sample(prefill_s=1.0, step_s=gaps)])
        return summarize(made)[f"itl_p{percent}_s"]

    assert (of(floor - 1).value, of(floor - 1).n_samples) == (None, floor - 1)
    assert of(floor).value == pytest.approx((floor - 1) * percent / 100)


def test_mbu_counts_what_a_step_reads() -> None:
    summary = summarize(record())  # 900 weight bytes, 10 KV bytes a token, mean length 2.5, 0.5 s, 4000 bytes/s
    assert summary["mbu_ratio"].value == pytest.approx((900 + 10 * 2.5) / 0.5 / 4000)
    assert summary["canonical_mbu_ratio"].value == pytest.approx((800 + 10 * 2.5) / 0.5 / 4000)


@pytest.mark.parametrize(
    ("changed", "which"),
    [
        ({"ceiling": None}, {"mbu_ratio", "canonical_mbu_ratio"}),
        ({"ceiling": type(CEILING)(llc_bytes=100)}, {"mbu_ratio", "canonical_mbu_ratio"}),
        ({"ceiling": type(CEILING)(read_bytes_per_s=1.0, llc_bytes=1000)}, {"mbu_ratio", "canonical_mbu_ratio"}),
        ({"facts": None}, {"mbu_ratio", "canonical_mbu_ratio"}),
        ({"facts": msgspec.structs.replace(FACTS, kv_bytes_per_token=None)}, {"mbu_ratio", "canonical_mbu_ratio"}),
        ({"facts": msgspec.structs.replace(FACTS, embedding_bytes=None)}, {"mbu_ratio"}),
        ({"facts": msgspec.structs.replace(FACTS, canonical_weight_bytes=None)}, {"canonical_mbu_ratio"}),
    ],
)
def test_mbu_is_none_where_something_is_not_known(changed: dict[str, Any], which: set[str]) -> None:
    summary = summarize(record(**changed))
    assert {key for key in ("mbu_ratio", "canonical_mbu_ratio") if summary[key].value is None} == which


def test_a_summary_never_mixes_series() -> None:
    with pytest.raises(ValueError, match="one series"):
        summarize([record("tg4"), record("pp512")])
    with pytest.raises(ValueError, match="one series"):
        summarize([record(), record(facts=msgspec.structs.replace(FACTS, kv_cache="u8"))])
    with pytest.raises(ValueError, match="one series"):
        summarize([])


def test_json_is_the_record_and_its_summary_on_one_line() -> None:
    made = record()
    line = render_json(made)
    read = json.loads(line)
    summary = read.pop("summary")
    assert "\n" not in line and read == made.raw()
    assert summary["n_launches"] == 1
    figure = {"value": 2.0, "mean": 2.0, "n_samples": 3, "within_cv": 0.0, "low": None, "high": None}
    assert summary["tg_tokens_per_s"] == figure


def test_definitions_have_ids_of_their_own() -> None:
    assert len({metric.id for metric in METRICS}) == len({metric.key for metric in METRICS}) == len(METRICS)


@pytest.mark.parametrize(
    ("freedom", "t"),
    [(1, 12.7062047), (2, 4.3026527), (3, 3.1824463), (4, 2.7764451), (9, 2.2621572), (200, 1.9718962)],
)
def test_quantiles_of_t_are_the_tabulated_ones(freedom: int, t: float) -> None:
    assert t_quantile(0.95, freedom) == pytest.approx(t, abs=1e-6)


@given(st.lists(st.floats(min_value=1e-3, max_value=1e6), min_size=2, max_size=20), st.floats(1e-3, 1e3))
def test_an_interval_holds_its_mean_and_scales(values: list[float], factor: float) -> None:
    low, high = t_interval(values) or (1.0, 0.0)
    assert low <= statistics.fmean(values) * (1 + 1e-9) and statistics.fmean(values) * (1 - 1e-9) <= high
    scaled = t_interval([value * factor for value in values])
    assert scaled == (pytest.approx(low * factor, rel=1e-6, abs=1e-6), pytest.approx(high * factor, rel=1e-6, abs=1e-6))
    assert t_interval(values[:1]) is None
