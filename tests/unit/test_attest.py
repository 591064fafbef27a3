"""Placement and physics."""

from __future__ import annotations

import msgspec
import pytest

from bench import attest
from bench.facts import PhaseFacts, Placement
from bench.results.keys import precision_key
from bench.results.schema import PlacedOn
from bench.spec import parse_workload
from tests.fakes import facts
from tests.records import FACTS, fallback

PHASE = PhaseFacts(activations="f32", compute="f32")
GPU = Placement(device="GPU", matmul_share=1.0, operations={"MatMul": 7})


@pytest.mark.parametrize(
    ("placement", "says"),
    [
        ((GPU,), None),
        ((GPU, Placement(device="CPU", matmul_share=0.0)), None),
        ((GPU, Placement(device="CPU", matmul_share=0.0, operations={"Softmax": 2})), "CPU executes 2 Softmax"),
        ((Placement(device="CPU", matmul_share=1.0, operations={"MatMul": 7}),), "asked for GPU, but CPU"),
        (
            (Placement(device="GPU", matmul_share=0.9, operations={"MatMul": 7}),),
            "GPU holds only 90 % of the matrix products",
        ),
        ((), "does not tell"),
    ],
)
def test_everything_that_computes_is_where_it_was_asked_to_be(
    placement: tuple[Placement, ...], says: str | None
) -> None:
    found = attest.misplaced(facts(PHASE, asked_placement="GPU", placement=placement))
    assert (found is None) if says is None else (says in (found or ""))


def placed(**shares: float) -> attest.Placed:
    """Asked for GPU; each device has its share of the matrix products and one operation for each per cent of it."""
    return facts(
        PHASE,
        asked_placement="GPU",
        placement=tuple(
            Placement(device=device, matmul_share=share, operations={"MatMul": round(100 * share) or 1})
            for device, share in shares.items()
        ),
    )


@pytest.mark.parametrize(
    ("found", "allowed", "says"),
    [
        (
            placed(GPU=0.97, CPU=0.03),
            None,
            "asked for GPU, but CPU executes 3 MatMul: 3 % of the matrix products are there",
        ),
        (placed(GPU=0.97, CPU=0.03), 0.05, None),
        (placed(GPU=0.95, CPU=0.05), 0.05, None),
        (placed(GPU=0.94, CPU=0.06), 0.05, "6 % of the matrix products are there, 5 % may be"),
        (placed(GPU=0.94, CPU=0.03, NPU=0.03), 0.05, "CPU executes 3 MatMul and NPU executes 3 MatMul: 6 % of"),
        (placed(GPU=1.0, CPU=0.0), None, "CPU executes 1 MatMul: all matrix products are as asked"),
        (placed(GPU=1.0, CPU=0.0), 0.01, None),
        (placed(CPU=1.0), 0.99, "100 % of the matrix products are there, 99 % may be"),
        (placed(GPU=0.9), 0.05, "GPU holds only 90 % of the matrix products"),
        (placed(GPU=0.9), 0.1, None),
        (placed(), 0.5, "does not tell"),
        (placed(GPU=1.0), 0.5, None),
    ],
)
def test_a_share_elsewhere_may_be_allowed(found: attest.Placed, allowed: float | None, says: str | None) -> None:
    reason = attest.misplaced(found, allowed)
    assert (reason is None) if says is None else (says in (reason or "") and "\n" not in (reason or ""))


@pytest.mark.parametrize(
    ("share", "flag"),
    [(0.03, "0.03"), (0.031, "0.04"), (0.07, "0.07"), (0.0, "0.01"), (0.6, "0.60"), (0.9911, "0.992"), (1.0, None)],
)
def test_what_to_type_accepts_it_and_less_would_not(share: float, flag: str | None) -> None:
    found = placed(GPU=1 - share, CPU=share)
    assert attest.how_to_allow(found) == (f"`--allow-fallback {flag}` accepts it" if flag else None)
    if flag:
        assert attest.misplaced(found, float(flag)) is None
        assert share == 0 or attest.misplaced(found, float(flag) - 0.01)
    assert attest.how_to_allow(placed(GPU=1.0)) is None and attest.how_to_allow(placed()) is None


@pytest.mark.parametrize(
    ("found", "share", "text"),
    [
        (placed(GPU=1.0), None, None),
        (placed(), None, None),
        (placed(GPU=0.97, CPU=0.03), 0.03, "3 % on CPU"),
        (placed(GPU=0.969, NPU=0.02, CPU=0.011), 0.031, "3.1 % on CPU, NPU"),
        (placed(GPU=1.0, CPU=0.0), 0.0, "other operations on CPU"),
        (placed(GPU=0.9), 0.1, "10 % on what is not told"),
        (placed(GPU=0.9996, CPU=0.0004), 0.0004, "0.04 % on CPU"),
        (placed(GPU=0.1, CPU=0.2, NPU=0.7 - 1e-12), 0.9, "90 % on CPU, NPU"),
    ],
)
def test_what_is_elsewhere_in_a_word(found: attest.Placed, share: float | None, text: str | None) -> None:
    assert attest.elsewhere_share(found) == (share if share is None else pytest.approx(share))
    assert attest.elsewhere_text(found) == text


def test_what_passed_is_told_with_what_was_allowed() -> None:
    found = placed(GPU=0.97, CPU=0.03)
    told = "3 % of the matrix products not on GPU, 5 % allowed: CPU executes 3 MatMul"
    assert attest.passed(found, 0.05) == told
    assert attest.passed(found, 0.01) is None and attest.passed(found, None) is None, "that is no record to warn of"
    assert attest.passed(placed(GPU=1.0), 0.05) is None


def test_a_record_says_the_same_as_its_session() -> None:
    session, record = placed(GPU=0.97, CPU=0.03), fallback(0.03)
    assert (attest.elsewhere_share(session), attest.elsewhere_text(session)) == (
        attest.elsewhere_share(record), attest.elsewhere_text(record),
    )  # fmt: skip
    assert attest.elsewhere_share(FACTS) is None, "imported: nobody knows"
    assert attest.elsewhere_text(msgspec.structs.replace(FACTS, placement=[PlacedOn(device="CPU")])) is None


def test_only_work_elsewhere_is_in_the_precision_key() -> None:
    """And never where its share was not told, as in the invalid records of before."""
    whole = msgspec.structs.replace(fallback(0.0), placement=fallback(0.0).placement[:1], elsewhere_share=None)
    before = msgspec.structs.replace(fallback(0.03), elsewhere_share=None)
    assert precision_key(whole) == precision_key(before) == precision_key(FACTS)
    others = [fallback(0.03), fallback(0.04), fallback(0.03, "GPU"), fallback(0.03, Softmax=2), fallback(0.0)]
    assert len({precision_key(each) for each in (FACTS, *others)}) == 6
    counted = fallback(0.03 + 1e-9, Attention=7)
    assert precision_key(counted) == precision_key(fallback(0.03)), "one node more or less is no other segment"


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
