"""Which series stand against each other: what the sides share is equal, what they do not share is compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bench.pairing import ORDER, Alone, Pool, paired, pools
from bench.results.record import Record
from bench.results.schema import DeviceRef
from tests.records import FACTS, fallback, identity, record

OTHER_PRECISION = msgspec.structs.replace(FACTS, kv_cache="u8")


def at(backend: str, machine: str = "h1", workload: str = "tg4", **options: Any) -> Record:
    return record(workload, who=identity(workload, backend=backend, host_id=machine, options=options))


def named(pool: Pool) -> str:
    fields = pool.fields
    options = [f"{name[8:]}{value}" for name, value in fields.items() if name.startswith("options.")]
    return " ".join([str(fields["backend"]), str(fields["machine"]), str(fields["workload"]), *options])


def pairs_of(a: Iterable[Record], b: Iterable[Record]) -> list[tuple[str, str]]:
    return [(named(x), named(y)) for x, y in paired(pools(a), pools(b)).found]


def alone(of: Sequence[Alone]) -> list[tuple[str, str, str | None]]:
    return [(named(each.pool), each.name, each.value) for each in of]


def test_two_sweeps_compare_each_backend_with_itself() -> None:
    last, tonight = [at("onnx"), at("openvino"), at("cpu")], [at("openvino"), at("onnx"), at("llamacpp")]
    assert pairs_of(last, tonight) == [("onnx h1 tg4", "onnx h1 tg4"), ("openvino h1 tg4", "openvino h1 tg4")]
    found = paired(pools(last), pools(tonight))
    assert alone(found.only_a) == [("cpu h1 tg4", "backend", "cpu")]
    assert alone(found.only_b) == [("llamacpp h1 tg4", "backend", "llamacpp")]


def test_two_backends_are_compared_on_each_machine_that_both_know() -> None:
    a = [at("onnx"), at("onnx", "h2")]
    b = [at("openvino", "h2"), at("openvino", "h3")]
    assert pairs_of(a, b) == [("onnx h2 tg4", "openvino h2 tg4")]
    assert pairs_of([at("onnx")], [at("openvino"), at("cpu")]) == [
        ("onnx h1 tg4", "openvino h1 tg4"), ("onnx h1 tg4", "cpu h1 tg4"),
    ]  # fmt: skip


def test_options_are_compared_one_by_one() -> None:
    a = [at("onnx", threads=1, spin=spin) for spin in (True, False)]
    b = [at("onnx", threads=2, spin=spin) for spin in (False, True)]
    assert pairs_of(a, b) == [
        ("onnx h1 tg4 threads1 spintrue", "onnx h1 tg4 threads2 spintrue"),
        ("onnx h1 tg4 threads1 spinfalse", "onnx h1 tg4 threads2 spinfalse"),
    ]


def test_other_models_and_workloads_never_meet() -> None:
    found = paired(pools([at("onnx")]), pools([at("onnx", workload="pp512")]))
    assert not found.found and alone(found.only_a) == [("onnx h1 tg4", "workload", "tg4")]
    schemes = [[record(who=identity(scheme=scheme))] for scheme in ("int8", "int4")]
    assert pairs_of(*schemes) == []
    assert paired([], pools([at("onnx")])).only_b and paired(pools([at("onnx")]), []).only_a


def test_cards_of_one_name_are_told_apart_by_what_is_known() -> None:
    def card(uuid: str | None, index: int = 0, redacted: bool = False) -> Record:
        device = DeviceRef(kind="gpu", name="X", uuid=uuid, index=index)
        one = record(who=identity(devices=[device]))
        return msgspec.structs.replace(one, series_key="s0") if redacted else one

    a, b = [card("u1"), card("u2", 1)], [card("u2", 1), card("u1")]
    met = paired(pools(a), pools(b)).found
    assert {(x.fields["device id"], y.fields["device id"]) for x, y in met} == {("u1", "u1"), ("u2", "u2")}
    own = msgspec.structs.replace(card("u1"), series_key="s0")
    (pool,) = pools([card(None, redacted=True), own])
    assert pool.fields["device id"] == "u1", "of a published record its own series knows the card"


def test_launches_are_pooled_by_series_precision_and_proof_and_count_once() -> None:
    one, two = record(), record()
    unproven, other = record(status="unproven"), record(facts=OTHER_PRECISION)
    elsewhere = record(facts=fallback(0.03))
    found = pools([one, two, one, unproven, other, elsewhere])
    assert [pool.records for pool in found] == [(one, two), (unproven,), (other,), (elsewhere,)]
    assert {pool.fields["precision"] for pool in found} == {each.precision_key for each in (one, other, elsewhere)}


def test_a_segment_of_another_precision_stands_alone_where_both_sides_have_one_in_common() -> None:
    old, new = record(), record(facts=OTHER_PRECISION)
    found = paired(pools([old, new]), pools([record(facts=OTHER_PRECISION)]))
    assert [x.records for x, _ in found.found] == [(new,)]
    assert [(each.pool.records, each.name) for each in found.only_a] == [((old,), "precision")]
    assert len(paired(pools([old]), pools([new])).found) == 1, "else it is what is compared"


def test_every_field_has_its_place() -> None:
    (pool,) = pools([record()])
    assert {name for name in pool.fields if "." not in name} == set(ORDER) - {"*"}


one_record = st.builds(
    lambda backend, machine, workload, threads, facts: record(
        workload, who=identity(workload, backend=backend, host_id=machine, options=threads), facts=facts
    ),
    st.sampled_from(["onnx", "openvino"]),
    st.sampled_from(["h1", "h2", None]),
    st.sampled_from(["tg4", "pp512"]),
    st.dictionaries(st.sampled_from(["threads", "spin", "arena"]), st.booleans()),
    st.sampled_from([FACTS, OTHER_PRECISION, fallback(0.03), None]),
)
sides = st.lists(one_record, max_size=8)


@given(sides, sides)
def test_every_series_is_paired_or_alone_whichever_side_it_is_on(a: list[Record], b: list[Record]) -> None:
    in_a, in_b = pools(a), pools(b)
    there, back = paired(in_a, in_b), paired(in_b, in_a)
    for of, met, lone in (
        (in_a, [x for x, _ in there.found], there.only_a),
        (in_b, [y for _, y in there.found], there.only_b),
    ):
        ids = [pool.first.record_id for pool in of]
        assert {pool.first.record_id for pool in met} | {each.pool.first.record_id for each in lone} == set(ids)
        assert not {pool.first.record_id for pool in met} & {each.pool.first.record_id for each in lone}
    assert _ids(there.found) == {(x, y) for y, x in _ids(back.found)}


def _ids(found: Iterable[tuple[Pool, Pool]]) -> set[tuple[str, str]]:
    return {(x.first.record_id, y.first.record_id) for x, y in found}


@given(sides, sides)
def test_what_meets_is_of_one_model_and_workload(a: list[Record], b: list[Record]) -> None:
    for x, y in paired(pools(a), pools(b)).found:
        assert (x.model, x.fields["workload"]) == (y.model, y.fields["workload"])
        assert len({(r.series_key, r.precision_key, r.proven) for r in x.records}) == 1
