"""Placement and physics."""

from __future__ import annotations

import pytest

from bench import attest
from bench.facts import PhaseFacts, Placement
from bench.spec import parse_workload
from tests.fakes import facts

PHASE = PhaseFacts(activations="f32", compute="f32")
GPU = Placement(device="GPU", matmul_share=1.0, operations={"MatMul": 7})


@pytest.mark.parametrize(
    ("placement", "says"),
    [
        ((GPU,), None),
        ((GPU, Placement(device="CPU", matmul_share=0.0)), None),
        ((GPU, Placement(device="CPU", matmul_share=0.0, operations={"Softmax": 2})), "CPU executes 2 Softmax"),
        ((Placement(device="CPU", matmul_share=1.0, operations={"MatMul": 7}),), "asked for GPU, but CPU"),
        ((Placement(device="GPU", matmul_share=0.9, operations={"MatMul": 7}),), "only 90%"),
        ((), "does not tell"),
    ],
)
def test_everything_that_computes_is_where_it_was_asked_to_be(
    placement: tuple[Placement, ...], says: str | None
) -> None:
    found = attest.misplaced(facts(PHASE, asked_placement="GPU", placement=placement))
    assert (found is None) if says is None else (says in (found or ""))


def test_a_decode_step_reads_its_weights_and_the_cache_up_to_its_mean_position() -> None:
    traffic = attest.decode_traffic(facts(PHASE))
    assert traffic == attest.DecodeTraffic(weight_bytes=900_000_000, kv_bytes_per_token=1000)
    workload = parse_workload("tg9@d95x2")  # positions 96 to 104 are read: 100 on average
    ratio = attest.mbu_ratio(traffic, workload, 0.1, 2e10, llc_bytes=32 << 20)
    assert ratio == pytest.approx((900_000_000 + 2 * 100 * 1000) / 0.1 / 2e10)


def test_what_caches_can_serve_has_no_ceiling() -> None:
    traffic = attest.DecodeTraffic(weight_bytes=100 << 20, kv_bytes_per_token=0)
    assert attest.mbu_ratio(traffic, parse_workload("tg8"), 0.001, 2e10, llc_bytes=32 << 20) is None


def test_unknown_traffic_is_not_guessed() -> None:
    assert attest.decode_traffic(facts(PHASE, resident_weight_bytes=None)) is None


@pytest.mark.parametrize(("ratio", "possible"), [(None, True), (0.8, True), (1.1, True), (1.11, False)])
def test_no_rate_beats_the_memory(ratio: float | None, possible: bool) -> None:
    assert (attest.impossible(ratio) is None) == possible
