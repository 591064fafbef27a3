"""What an imported row says of itself, and what it cannot say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from bench.interchange.checks import digest
from bench.interchange.claims import claimed_record, model_and_scheme
from bench.interchange.llama_bench import Row, mangled
from bench.reports.details import record_details, render_details
from bench.reports.metrics import headline
from bench.reports.summary import summarize
from bench.reports.table import build_table
from bench.results.ids import new_uuid7
from bench.results.record import Record, decode, encode
from tests.interchange.reading import DERIVED, REAL, ROWS, rows_of
from tests.records import record

LAUNCH = new_uuid7()


def claims(path: Path) -> list[Record]:
    return [claimed_record(row, LAUNCH, path.name) for row in rows_of(path)]


def changed(**fields: Any) -> Row:
    row = rows_of(REAL / "once.jsonl")[0]
    return replace(row, fields={**row.fields, **fields})


@pytest.mark.parametrize("path", ROWS, ids=lambda path: path.name)
def test_everything_is_a_claim_that_keeps_every_field(path: Path) -> None:
    for row, claim in zip(rows_of(path), claims(path), strict=True):
        assert (claim.origin, claim.status, claim.proven) == ("imported", "unproven", False)
        assert claim.reason is not None and claim.reason.code == "imported"
        assert claim.source is not None and claim.source.fields == row.fields
        assert (claim.facts, claim.gate, claim.ceiling, claim.energy, claim.memory) == (None, None, None, None, [])
        assert (claim.identity.host_id, claim.identity.method, claim.identity.backend) == (None, 0, "llamacpp")
        assert claim.identity.scheme not in ("int8", "int4", "unknown")
        assert decode(encode(claim)) == claim


@pytest.mark.parametrize("path", ROWS, ids=lambda path: path.name)
def test_figures_are_those_that_llama_bench_states(path: Path) -> None:
    for claim in claims(path):
        assert claim.source is not None
        stated, figures = claim.source.fields, summarize(claim).values
        value = figures.pop(headline(claim.identity.workload))
        assert {name for name, other in figures.items() if other.value is not None} == set(), "one interval, one rate"
        assert value.mean == pytest.approx(stated["avg_ts"], rel=1e-12, abs=1e-6)
        assert (value.within_cv or 0) * value.mean == pytest.approx(stated["stddev_ts"], rel=1e-6, abs=1e-6)
        tokens, samples = stated["n_prompt"] + stated["n_gen"], stated.get("samples_ns")
        assert value.n_samples == len(samples or [])
        if samples:
            assert value.value == pytest.approx(median(1e9 * tokens / sample for sample in samples), rel=1e-12)
        else:
            assert value.value == stated["avg_ts"]


def test_a_figure_without_samples_says_so() -> None:
    (csv, *_), (jsonl, *_) = claims(REAL / "both.csv"), claims(REAL / "both.json")
    assert any("no samples" in warning for warning in csv.warnings) and not jsonl.warnings
    assert "the mean that the source states" in render_details(record_details(csv))


@pytest.mark.parametrize("stem", ["both", "g0-both"])
def test_one_test_in_two_notations_is_one_row(stem: str) -> None:
    csv, jsonl = (rows_of(REAL / f"{stem}.{notation}") for notation in ("csv", "json"))
    assert [digest(row) for row in csv] == [digest(row) for row in jsonl]
    assert len({digest(row) for row in csv}) == len(csv)


@pytest.mark.parametrize(
    ("path", "generation", "keys"),
    [
        (REAL / "g0.json", "G0", 36),
        (DERIVED / "g1.jsonl", "G1", 32),
        (REAL / "g2.jsonl", "G2", 34),
        (DERIVED / "g2-defrag.jsonl", "G2", 36),
        (DERIVED / "g3.jsonl", "G3", 41),
        (DERIVED / "g4.jsonl", "G4", 40),
        (REAL / "sweep.json", "G5", 42),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_generations_are_told_by_their_fields(path: Path, generation: str, keys: int) -> None:
    for row in rows_of(path):
        assert row.generation == generation
        assert len(row.fields) == keys + 2  # samples_ns and samples_ts


def test_workloads_have_llama_benchs_names() -> None:
    names = [claim.identity.workload.name for claim in claims(REAL / "sweep.jsonl")]
    assert names == ["pp64", "tg16", "pp32+tg8", "pp64@d32", "tg16@d32", "pp32+tg8@d32"]


@pytest.mark.parametrize(
    ("model_type", "model", "scheme"),
    [
        ("llama 7B Q4_0", "llama-7b", "q4_0"),
        ("llama 7B mostly Q4_0", "llama-7b", "q4_0"),
        ("qwen2 1.5B Q4_K - Medium", "qwen2-1.5b", "q4_k_m"),
        ("qwen3moe 30B.A3B Q3_K - Small", "qwen3moe-30b.a3b", "q3_k_s"),
        ("llama 8B IQ2_XXS - 2.0625 bpw", "llama-8b", "iq2_xxs"),
        ("llama 8B IQ3_S mix - 3.66 bpw", "llama-8b", "iq3_m"),
        ("llama 8B TQ1_0 - 1.69 bpw ternary", "llama-8b", "tq1_0"),
        ("gpt-oss 20B MXFP4 MoE", "gpt-oss-20b", "mxfp4_moe"),
        ("llama 1B (guessed) F16", "llama-1b", "f16"),
        ("llama 1B all F32", "llama-1b", "f32"),
        ("llama ?B Q8_0", "tiny-int8", "q8_0"),
        ("smollm2-135m Q8_0", "smollm2-135m", "q8_0"),
        ("something new", "something-new", "unknown"),
        ("", "tiny-int8", "unknown"),
        ("../../etc Q8_0", "etc", "q8_0"),
    ],
)
def test_model_and_scheme_are_read_from_the_type(model_type: str, model: str, scheme: str) -> None:
    fields = changed(model_type=model_type, model_filename="/home/me/tiny-int8.gguf").fields
    assert model_and_scheme(fields) == (model, scheme)


def test_a_destroyed_name_is_kept_flagged_and_keyed_on_by_nothing() -> None:
    claim, as_csv = claims(REAL / "nonascii.json")[0], claims(REAL / "nonascii.csv")[0]
    assert claim.source is not None and as_csv.source is not None
    destroyed, whole = claim.source.fields["model_filename"], as_csv.source.fields["model_filename"]
    assert whole == "modelle-äöü/模型.gguf" and destroyed == mangled(whole) != whole
    assert any("destroyed" in warning for warning in claim.warnings)
    assert (claim.identity.model, claim.identity.weights.source) == ("llama", "unknown")
    assert claim.series_key == as_csv.series_key
    other = claimed_record(changed(**{**claim.source.fields, "model_filename": "\ufffff.gguf"}), LAUNCH, "x")
    assert other.series_key == claim.series_key


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({}, ["cpu"]),
        ({"gpu_info": "A GPU", "backends": "X"}, ["gpu", "cpu"]),
        ({"gpu_info": "A GPU", "backends": "X", "n_gpu_layers": 0}, ["unknown", "cpu"]),
        ({"gpu_info": "A GPU", "backends": "X", "n_gpu_layers": 0, "no_op_offload": 1}, ["cpu"]),
        ({"gpu_info": "A GPU", "backends": "X", "devices": "none"}, ["cpu"]),
        ({"gpu_info": "A GPU, Another", "backends": "X"}, ["unknown", "cpu"]),
        ({"gpu_info": "A GPU/Another", "backends": "X"}, ["unknown", "cpu"]),
        ({"gpu_info": "A GPU, Another", "backends": "X", "devices": "X1"}, ["unknown", "cpu"]),
        ({"gpu_info": "", "backends": "RPC"}, ["unknown", "cpu"]),
        ({"gpu_info": "", "backends": "BLAS"}, ["cpu"]),
    ],
)
def test_a_device_is_named_only_where_there_is_no_doubt(fields: dict[str, Any], kinds: list[str]) -> None:
    claim = claimed_record(changed(**fields), LAUNCH, "x")
    assert [device.kind for device in claim.identity.devices] == kinds
    assert any("which device" in warning for warning in claim.warnings) == ("unknown" in kinds)


def test_flags_of_g0_tell_what_is_compiled_in() -> None:
    row = rows_of(REAL / "g0.json")[0]
    for flag, kinds in ((False, ["cpu"]), (True, ["unknown", "cpu"])):
        claim = claimed_record(replace(row, fields={**row.fields, "metal": flag}), LAUNCH, "x")
        assert [device.kind for device in claim.identity.devices] == kinds


def test_what_differs_in_execution_is_another_series() -> None:
    base = claimed_record(changed(), LAUNCH, "x")
    for name, value in {"n_threads": 7, "type_k": "q8_0", "flash_attn": 1, "model_size": 5, "backends": "BLAS"}.items():
        assert claimed_record(changed(**{name: value}), LAUNCH, "x").series_key != base.series_key, name
    for name, value in {"test_time": "2020-01-01T00:00:00Z", "build_commit": "abc"}.items():
        assert claimed_record(changed(**{name: value}), LAUNCH, "x").series_key == base.series_key, name


def test_a_flag_and_a_number_for_flash_attention_mean_the_same() -> None:
    keys = [claimed_record(changed(flash_attn=value), LAUNCH, "x").series_key for value in (True, 1, False, 0, -1)]
    assert keys[0] == keys[1] != keys[2] == keys[3] != keys[4]


def test_claims_stand_behind_what_is_proven_however_fast() -> None:
    proven = record("pp512")
    table = build_table([*claims(REAL / "sweep.jsonl"), proven])
    assert table.rows[0].first is proven
    assert {row.first.origin for row in table.rows[1:]} == {"imported"}
    assert [text.rstrip("!") for text in table.texts(table.rows[1])].count("imported") == 1


def test_showing_a_claim_shows_its_source_in_its_own_words() -> None:
    claim = claims(REAL / "sweep.jsonl")[0]
    assert claim.source is not None
    shown = render_details(record_details(claim))
    assert "claimed by whoever it was imported from" in shown and "sweep.jsonl:1" in shown
    for name, value in json.loads((REAL / "sweep.jsonl").read_text().splitlines()[0]).items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        assert f"  {name}" in shown and text in shown
