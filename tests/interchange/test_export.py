"""Records as llama-bench would have written them, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backends.llamacpp.parameters import OPTIONS
from bench.interchange.claims import claimed_record
from bench.interchange.export import FROM_OPTIONS, llama_bench_row, row_line
from bench.interchange.llama_bench import FIELDS, SAMPLES
from bench.interchange.rows import Scan, read_rows
from bench.reports.metrics import headline
from bench.reports.summary import summarize
from bench.results.ids import new_uuid7
from bench.results.record import Record, decode, encode
from bench.results.schema import Covariates, DeviceRef, Info, Sample
from bench.spec import definition_hash
from bench.types import Arch, Workload
from tests.interchange.reading import DERIVED, REAL, ROWS, rows_of
from tests.records import identity, record, samples

LAUNCH = new_uuid7()
TINY = Arch(
    family="llama", layers=2, hidden=96, heads=4, kv_heads=2, head_dim=32, ffn=160, vocab=300, context=512,
    rope_theta=10000.0, norm_eps=1e-5, tied=False,
)  # fmt: skip
"""Of which the files in `real` were made."""

DEFAULTS = {name: option.default for name, option in OPTIONS.items()}


def back(rows: list[dict[str, Any]]) -> list[Record]:
    """Exported and imported again, through text and the store's bytes."""
    text = "".join(f"{row_line(row)}\n" for row in rows)
    found = [claimed_record(row, LAUNCH, "x") for row in read_rows(text.encode(), "x", Scan())]
    return [decode(encode(each)) for each in found]


def exported(made: Record, arch: Arch | None = None) -> dict[str, Any]:
    row = llama_bench_row(made, arch)
    assert row is not None
    return row


def measured(workload: str, **changed: Any) -> Record:
    """As the llamacpp adapter leaves it, with samples that are not all alike."""
    taken = [each for step in (0.1, 0.123456789, 0.3) for each in samples(workload, step, 7 * step, 1)]
    who = identity(
        workload, model="tiny", backend="llamacpp", provider=None, definition=definition_hash(TINY),
        options={**DEFAULTS, "threads": 2}, devices=[DeviceRef(kind="cpu", name="A CPU")],
    )  # fmt: skip
    versions = {"llama-cpp-python": "0.3.36", "llama.cpp": "0.5.0", "ggml": "0.25.3 with CPU+X"}
    info = Info(started_at_utc="2026-01-02T03:04:05.678+00:00", host={"cpu": "A CPU"})
    fields: dict[str, Any] = {"samples": taken, "covariates": Covariates(runtime=versions), "info": info, "who": who}
    return record(workload, **{**fields, **changed})


@pytest.mark.parametrize("path", [p for p in ROWS if p.suffix != ".csv"], ids=lambda path: path.name)
def test_what_was_imported_comes_out_as_it_went_in(path: Path) -> None:
    """Every name, every number bit by bit, in the same order."""
    rows = rows_of(path)
    out = [exported(claimed_record(row, LAUNCH, path.name)) for row in rows]
    assert [list(row.items()) for row in out] == [list(row.fields.items()) for row in rows]
    if path.suffix == ".jsonl" and path.parent in (REAL, DERIVED):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
        assert [list(json.loads(row_line(row)).items()) for row in out] == [
            list(json.loads(line).items()) for line in lines
        ]


@pytest.mark.parametrize("path", ROWS, ids=lambda path: path.name)
def test_import_export_import_is_the_same_record(path: Path) -> None:
    once = [decode(encode(claimed_record(row, LAUNCH, "x"))) for row in rows_of(path)]
    again = back([exported(each) for each in once])
    for first, second in zip(once, again, strict=True):
        assert first.source is not None and second.source is not None
        assert list(first.source.fields.items()) == list(second.source.fields.items())
        assert first.source.row_digest == second.source.row_digest
        assert (first.series_key, first.samples) == (second.series_key, second.samples)
        assert summarize(first).values == summarize(second).values


def test_fields_and_types_are_those_of_the_present_llama_bench() -> None:
    real = json.loads((REAL / "sweep.jsonl").read_text(encoding="utf-8").splitlines()[0])
    row = json.loads(row_line(exported(measured("pp512"), TINY)))
    assert list(real) == [*FIELDS, *SAMPLES] == list(row)
    unlike = {name for name in real if type(row[name]) is not type(real[name])}
    assert unlike == {"build_number"}, "which this project does not know"


def test_a_measured_record_says_what_llama_bench_would() -> None:
    row = exported(measured("pp512+tg4"), TINY)
    real = json.loads((REAL / "sweep.jsonl").read_text(encoding="utf-8").splitlines()[0])
    same = {*FIELDS} - {"build_commit", "build_number", "cpu_info", "backends", "model_filename", "model_type"}
    same -= {"n_prompt", "n_gen", "test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts", "devices"}
    assert {name: row[name] for name in same} == {name: real[name] for name in same}
    assert (row["model_type"], row["model_filename"]) == ("tiny Q8_0", "tiny-int8.gguf")
    assert (row["build_commit"], row["backends"], row["devices"]) == ("0.5.0", "X", "none")
    assert (row["n_prompt"], row["n_gen"], row["n_depth"]) == (512, 4, 0)
    assert row["test_time"] == "2026-01-02T03:04:05Z"
    assert row["samples_ns"] == [1100000000, 1358024679, 3300000000]
    assert row["avg_ns"] == 1919341559
    assert row["avg_ts"] == pytest.approx((516 / 1.1 + 516 / 1.358024679 + 516 / 3.3) / 3)


@pytest.mark.parametrize("workload", ["pp512", "tg4", "pp512+tg4"])
def test_exported_and_imported_a_measured_record_keeps_its_figures(workload: str) -> None:
    made = measured(workload)
    (claim,) = back([exported(made, TINY)])
    key = headline(made.identity.workload)
    before, after = summarize(made)[key], summarize(claim)[key]
    for part in ("value", "mean", "within_cv", "n_samples"):
        assert getattr(after, part) == pytest.approx(getattr(before, part), rel=1e-9), part
    assert (claim.identity.model, claim.identity.scheme, claim.origin) == ("tiny", "q8_0", "imported")


def test_another_runtime_leaves_out_what_it_has_not() -> None:
    row = exported(record("pp512"))
    assert (row["build_commit"], row["n_threads"], row["n_prompt"]) == ("onnxruntime 1.31.1", 2, 512)
    for name in ("n_batch", "type_k", "n_gpu_layers", "tensor_split", "embeddings", "backends", "model_size"):
        assert row[name] is None
    (claim,) = back([row])
    assert claim.identity.workload.name == "pp512" and claim.identity.workload.chunk is None
    assert (claim.identity.backend, claim.covariates.runtime) == ("unknown", {"unknown": "onnxruntime 1.31.1"})


def test_numbers_of_another_definition_are_not_used() -> None:
    assert exported(measured("pp512"), None)["model_size"] is None
    other = msgspec.structs.replace(measured("pp512").identity, definition="0" * 16)
    assert exported(record("pp512", who=other), TINY)["model_n_params"] is None


@pytest.mark.parametrize("made", [record("512/5"), record("pp512", samples=[]), record("tg4", samples=[Sample()])])
def test_what_llama_bench_cannot_say_is_left_out(made: Record) -> None:
    assert llama_bench_row(made, None) is None


def test_a_batch_is_left_out() -> None:
    shape = Workload(name="tg4x4", prompt_tokens=0, new_tokens=4, batch=4)
    assert llama_bench_row(record("tg4", who=identity(shape)), None) is None


def test_options_that_are_read_exist() -> None:
    assert set(FROM_OPTIONS) <= set(FIELDS)
    assert set(FROM_OPTIONS.values()) <= set(OPTIONS)
