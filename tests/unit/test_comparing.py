"""Rows of a comparison: their values, what is refused, what is told beside a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.comparing import FIGURES, Compared, centre, compared, higher_is_better
from bench.errors import UsageError
from bench.results.record import Record
from bench.results.schema import Code, Covariates, DeviceRef, Info, Memory, Sample, Source, Weights
from tests.records import FACTS, fallback, identity, record, samples

BF16 = msgspec.structs.replace(
    FACTS, kv_cache="u8", decode=msgspec.structs.replace(FACTS.decode, compute="bf16"), isa="wide"
)


def launches(*rates: float, workload: str = "tg4", **changed: Any) -> list[Record]:
    """A launch for each rate in tok/s."""
    return [record(workload, samples=samples(workload, step_s=1 / rate), **changed) for rate in rates]


def only(a: Sequence[Record], b: Sequence[Record], **how: Any) -> Compared:
    (row,) = compared(a, b, **how).rows
    return row


A = launches(100, 101, 99, 100.5, 99.5)


@pytest.mark.parametrize(
    ("rates", "verdict"),
    [
        ((110, 111, 109), "better"),
        ((90, 91, 89), "worse"),
        ((100.2, 100, 99.8), "same"),
        ((100, 120, 80), "inconclusive"),
        ((100,), "inconclusive"),
    ],
)
def test_the_verdict_is_how_b_stands_to_a(rates: tuple[float, ...], verdict: str) -> None:
    row = only(A, launches(*rates))
    assert row.comparison is not None and row.comparison.verdict == verdict
    assert row.comparison.ratio == pytest.approx((centre(row.b) or 0) / (centre(row.a) or 1))
    assert (row.model, row.workload, row.figure) == ("smollm2-135m-int8", "tg4", "tg_tokens_per_s")
    assert (len(row.a), row.b) == (5, pytest.approx(rates))
    assert (row.differs, row.precision, row.covariates, row.refused, row.unproven) == ({}, {}, {}, None, False)
    slower = only(A, launches(*rates), figure="tpot_s").comparison
    assert slower is not None and slower.verdict == verdict, "less time is better"
    if verdict in ("better", "worse"):
        assert slower.ratio == pytest.approx(1 / row.comparison.ratio, rel=1e-3)


@given(st.lists(st.floats(10, 1000), min_size=2, max_size=6), st.lists(st.floats(10, 1000), min_size=2, max_size=6))
def test_sides_change_places(x: list[float], y: list[float]) -> None:
    a, b = launches(*x), launches(*y)
    there, back = only(a, b).comparison, only(b, a).comparison
    assert there is not None and back is not None and there.ratio is not None and back.ratio is not None
    assert there.ratio == pytest.approx(1 / back.ratio)
    mirrored = {"better": "worse", "worse": "better"}
    assert back.verdict == mirrored.get(there.verdict, there.verdict)


def test_a_launch_is_the_median_of_its_samples_however_many_records_it_has() -> None:
    interrupted = record(samples=[*samples(step_s=0.01), Sample(step_s=[9.0] * 4)])
    parts = [record(launch_id=interrupted.launch_id, samples=samples(step_s=s)) for s in (0.02, 0.02)]
    assert only(A, [interrupted]).b == pytest.approx((100,))
    assert only(A, [interrupted, *parts, interrupted]).b == pytest.approx((50,))


def test_every_figure_can_be_compared() -> None:
    with_memory = [
        record("512/5", samples=samples("512/5"), memory=[Memory(device="host", anon_peak_bytes=each)])
        for each in (100, 200)
    ]
    seen = set()
    for figure in FIGURES:
        for workload in ("tg4", "pp512", "pp512+tg4", "512/5"):
            row = only(*([each] for each in launches(100, 100, workload=workload)), figure=figure)
            assert row.figure == figure and (row.refused is None) == bool(row.a)
            seen |= {figure} if row.a else set()
    assert seen == {"pp_tokens_per_s", "tg_tokens_per_s", "pg_tokens_per_s", "decode_tokens_per_s",
                    "ttft_s", "tpot_s", "mbu_ratio", "canonical_mbu_ratio", "itl_p50_s"}  # fmt: skip
    row = only([with_memory[0]], [with_memory[1]], figure="memory_bytes")
    assert (row.a, row.b) == ((100,), (200,))
    with pytest.raises(UsageError, match="nearest: ttft_s"):
        compared(A, A, figure="tft_s")


def test_more_is_better_of_rates_and_shares_alone() -> None:
    assert {figure for figure in FIGURES if higher_is_better(figure)} == {
        "pp_tokens_per_s", "tg_tokens_per_s", "pg_tokens_per_s", "decode_tokens_per_s",
        "mbu_ratio", "canonical_mbu_ratio",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"weights": Weights(source="synthetic", digest="d2")}, "other weights: d1 and d2"),
        ({"weights": Weights(source="file.gguf")}, "other weights: d1 and unknown, of file.gguf"),
        ({"method": 0}, "other method: 1 and 0"),
        ({"definition": "x"}, "other definition: unknown and x"),
        ({"fidelity": "exact"}, "other fidelity: native and exact"),
        ({"workload": msgspec.structs.replace(identity().workload, chunk=256)}, "other workload.chunk: 512 and 256"),
        ({"method": 0, "fidelity": "exact"}, "other fidelity: native and exact; other method: 1 and 0"),
    ],
    ids=str,
)
def test_what_cannot_be_compared_has_no_verdict(other: dict[str, Any], says: str) -> None:
    row = only(A, launches(50, 50, who=identity(**other)))
    assert (row.comparison, row.refused) == (None, says)
    assert row.differs == {}, "said once"
    assert only(A, [*launches(50, who=identity(**other)), *launches(99, 100)]).refused is None, "the equal ones are"


def test_launches_are_not_held_against_themselves_nor_against_nothing() -> None:
    assert only(A, A[2:]).refused == "3 launches stand on both sides"
    assert only(A, A[:1]).refused == "1 launch stands on both sides"
    assert only(A, launches(100), figure="ttft_s").refused == "no ttft_s in A and B"
    assert only(A, [record(samples=[])]).refused == "no tg_tokens_per_s in B"
    assert only(A, [record(samples=[Sample(step_s=[1e-320] * 4)])]).refused == "no tg_tokens_per_s in B", "infinite"


def test_what_differs_of_the_identity() -> None:
    other = launches(50, who=identity(options={"threads": 1, "spin": True}, host_id="h2", kv_capacity=64))
    row = only(A, other)
    assert row.differs == {
        "machine": ("h1", "h2"), "options.threads": ("2", "1"), "options.spin": (None, "true"),
        "kv_capacity": (None, "64"),
    }  # fmt: skip
    assert "other machine" in row.badges
    runtime = only(
        A, launches(50, who=identity(backend="openvino", provider=None, options={"streams": 1, "threads": 3}))
    )
    assert runtime.differs == {
        "backend": ("onnx", "openvino"), "provider": ("CPUExecutionProvider", None), "options.threads": ("2", "3"),
    }, "options that one of the two does not have are its own"  # fmt: skip
    card = only(A, launches(50, who=identity(devices=[DeviceRef(kind="cpu", name="A CPU", uuid="u2")])))
    assert card.differs == {"device id": ("u1", "u2")}
    unknown = only(A, launches(50, who=identity(devices=[DeviceRef(kind="cpu", name="A CPU")])))
    assert unknown.differs == {}


def test_another_precision_is_badged_and_told() -> None:
    row = only(A, launches(200, 201, 199, facts=BF16))
    assert row.precision_differs and "other precision" in row.badges
    assert row.precision == {"kv_cache": ("f32", "u8"), "isa": (None, "wide"), "decode.compute": ("f32", "bf16")}
    assert row.comparison is not None and row.comparison.verdict == "better"
    kernels = msgspec.structs.replace(FACTS, decode=msgspec.structs.replace(FACTS.decode, kernels={"matmul": "x"}))
    same = only(A, launches(100, facts=kernels))
    assert not same.precision_differs and same.precision == {}


def test_work_elsewhere_is_never_compared_with_none_and_told_where_both_have_it() -> None:
    some = launches(200, 201, 199, 200, 200, facts=fallback(0.03))
    row = only(A, some)
    assert (row.comparison, row.refused) == (None, "other work elsewhere: nothing and 3 % on CPU")
    assert (row.elsewhere, row.badges, row.precision_differs) == ((None, "3 % on CPU"), ("fallback",), False)
    assert only(some, launches(100, facts=fallback(0.04))).comparison is None
    assert only(some, launches(100, facts=fallback(0.03, "GPU"))).comparison is None
    alike = only(some, launches(100, 101, 99, 100, 100, facts=fallback(0.03)))
    assert alike.comparison is not None and alike.comparison.verdict == "worse"
    assert alike.elsewhere == ("3 % on CPU", "3 % on CPU") and alike.badges == ("fallback",)
    assert only(A, [*some, *launches(100, 101, 99)]).elsewhere == (None, None), "the equal ones are compared"
    both = only(A, launches(100, facts=fallback(0.03, facts=BF16)))
    assert both.precision_differs and "other precision" in both.badges and both.comparison is None


def covariates(runtime: str = "1.31.1", **changed: Any) -> Covariates:
    return Covariates(runtime={"onnxruntime": runtime, "onnx": "1.23"}, **changed)


def test_covariates_that_changed() -> None:
    before, after = covariates(driver="1", machine={"turbo": True}), covariates("1.32.0", driver="2", power_cap_w=90.0)
    row = only(launches(100, 101, covariates=before), launches(90, 91, covariates=after))
    assert row.covariates == {
        "runtime.onnxruntime": ("1.31.1", "1.32.0"), "driver": ("1", "2"), "power_cap_w": (None, "90.0"),
        "machine.turbo": ("true", None),
    }  # fmt: skip
    assert "mixed" not in row.badges
    other = [record(covariates=Covariates(runtime={"openvino": "2026", "onnx": "1.23"}), who=identity(backend="ov"))]
    assert only(launches(100, covariates=covariates(builder=1)), other).covariates == {
        "runtime": ("onnxruntime 1.31.1", "openvino 2026"), "builder": ("1", None),
    }  # fmt: skip


def test_a_side_that_mixes_covariates_says_so() -> None:
    def of(*commits: str | None) -> list[Record]:
        return [record(covariates=covariates(code=Code(commit=each, dirty=False))) for each in commits]

    row = only(of("b", "a", None), of("a", "a"))
    assert row.covariates == {"code.commit": ("a | b | unknown", "a")} and "mixed" in row.badges
    row = only(of(*"abcd"), of(*"abcd"))
    assert row.covariates == {"code.commit": ("4 different ones", "4 different ones")}


def test_badges() -> None:
    five = launches(100, 101, 99, 100, 100)
    assert only(A, five).badges == ()
    assert only(A, five[:4]).badges == ("few launches",)
    assert only(A, [*five[:4], *launches(100, warnings=["hot"])]).badges == ("warnings",)
    unproven = only(A, launches(100, 101, 99, 100, 100, status="unproven"))
    assert unproven.unproven and unproven.badges == ("unproven",)
    claim = Source(format="llama-bench", generation="1", notation="json", row_digest="x")
    claims = [launches(*[100] * 5, status="unproven", origin="imported", source=claim) for _ in range(2)]
    assert only(*claims).badges == ("unproven", "imported")


def test_proven_and_unproven_launches_of_a_side_are_two_rows() -> None:
    mixed = [*launches(90, 90, who=identity(backend="x")), *launches(80, who=identity(backend="x"), status="unproven")]
    rows = compared(launches(100, status="unproven"), mixed).rows
    assert [(row.b, row.unproven) for row in rows] == [(pytest.approx((80,)), True)]
    lone = compared(A, mixed)
    assert [row.b for row in lone.rows] == [pytest.approx((90, 90))] and [x.name for x in lone.only_b] == ["proof"]


def pair(index: int | None, rate: float) -> Record:
    return record(samples=samples(step_s=1 / rate), info=Info(launch_index=index))


def test_pairs_are_launches_of_one_index() -> None:
    a = [pair(index, rate) for index, rate in ((0, 100), (1, 50), (2, 25), (3, 10), (None, 10))]
    b = [pair(index, rate) for index, rate in ((2, 24), (0, 96), (1, 48), (7, 1), (None, 1))]
    row = only(a, b, in_pairs=True)
    assert (row.a, row.b) == (pytest.approx((100, 50, 25)), pytest.approx((96, 48, 24)))
    assert row.comparison is not None and row.comparison.paired
    assert row.comparison.verdict == "worse" and row.comparison.ratio == pytest.approx(0.96)
    apart = only(a, b).comparison
    assert apart is not None and not apart.paired and apart.verdict == "inconclusive"
    assert only(a, b[3:], in_pairs=True).refused == "no tg_tokens_per_s in A and B"
    with pytest.raises(ValueError, match="2 records of launch index 0"):
        compared(a, [*b, pair(0, 9)], in_pairs=True)


def test_rows_stand_by_model_and_workload() -> None:
    a, b = (
        [r for w in ("tg4", "pp512") for m in ("z", "a") for r in launches(10, workload=w, who=identity(w, model=m))]
        for _ in "ab"
    )
    assert [(row.model, row.workload) for row in compared(a, b).rows] == [
        ("a-int8", "pp512"), ("a-int8", "tg4"), ("z-int8", "pp512"), ("z-int8", "tg4"),
    ]  # fmt: skip


def test_no_records_are_no_rows() -> None:
    assert compared([], []).rows == () and centre(()) is None
    assert [each.pool.records for each in compared(A, []).only_a] == [tuple(A)]
