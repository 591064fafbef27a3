"""What a session is said to do: read from a device that changes above 64 rows; what products round, by array."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.openvino import OpenVino, devices, facts, ir, rounding, runtime_model
from backends.openvino.compiling import Compiled
from backends.openvino.runtime_model import Layer
from bench.api import Codes
from bench.artifacts.noise import PrecisionClass
from bench.artifacts.reader import open_artifact
from bench.artifacts.synthesize import synthesize
from bench.attest import decode_traffic, misplaced
from bench.facts import Activations, Compute, SessionFacts
from bench.types import Case, Float32, Prepared, Workload
from tests import fakes
from tests.scripted_core import A770, UUID, Gpu, ScriptedCore
from tests.tiny import tiny_arch

ARCH = tiny_arch(hidden=128, ffn=192)
OPTIONS = {name: option.default for name, option in OpenVino.options.items()}
PREFILL = Workload(name="pp100", prompt_tokens=100, new_tokens=0)
CASE = fakes.case(PREFILL, backend="openvino", arch=ARCH, device="GPU", options=OPTIONS)
"""A prefill of 100 rows, above the GPU's threshold; decode and the gate's path are below."""


def prepared_as(folder: Path, **changes: Any) -> Prepared:
    arch, scheme = replace(ARCH, **changes.pop("arch", {})), changes.pop("scheme", "int8")
    for name in ("canonical", "prepared"):
        (folder / name).mkdir()
    synthesize(folder / "canonical", model="small", arch=arch, scheme=scheme, processes=1)
    case = replace(CASE, arch=arch, scheme=scheme)
    return OpenVino().prepare(case, open_artifact(folder / "canonical"), folder / "prepared", lambda done, total: None)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepared_as(tmp_path_factory.mktemp("openvino"))


def read(prepared: Prepared, core: Any, asked: Case, rows: int = 100) -> SessionFacts:
    folder = Path(prepared.path)
    return facts.read(Compiled(core, ir.read(core, folder), asked, folder), asked.arch, rows)


def on_gpu(prepared: Prepared, device: str = "GPU", rows: int = 100, **changes: Any) -> SessionFacts:
    return read(
        prepared, ScriptedCore("CPU", "GPU", gpu=type("Told", (Gpu,), changes)), replace(CASE, device=device), rows
    )


def test_a_gpu_rounds_to_int8_above_its_threshold_only(prepared: Prepared) -> None:
    told = on_gpu(prepared)
    assert told.prefill.activations == "a8-token" and told.decode.activations == "f16"
    assert told.path is not None and told.path.activations == "f16"
    assert {phase.compute for phase in (told.prefill, told.path, told.decode)} == {"f16"}
    assert told.precision_classes == ("a8-token+f16", "f16")
    evidence = {entry.source: entry.claim for entry in told.evidence}
    assert evidence[f"a product of {facts.PROBED} alone, with these properties"] == (
        "rounds its inputs as f16 at 1 rows, f16 at 16 rows, a8-token at 100 rows"
    )


def test_a_short_prefill_is_the_path(prepared: Prepared) -> None:
    told = on_gpu(prepared, rows=64)
    assert told.prefill.activations == "f16" and told.path is None
    assert on_gpu(prepared, rows=1).prefill.activations == "f16"


def test_kernels_are_those_of_their_phase(prepared: Prepared) -> None:
    told = on_gpu(prepared)
    assert told.prefill.kernels["matmul"] == "2 × FullyConnected jit:gemm:any__i8 (i8)"
    assert told.decode.kernels["matmul"] == "2 × FullyConnected jit:gemm:any__f16 (f16)"
    assert told.decode.kernels["attention"] == "1 × scaled_dot_product_attention ocl::sdpa::opt__f16 (f16)"
    assert told.decode.kernels["embedding"] == "1 × Gather, kernel not told"


def test_a_gpu_is_named_and_placed(prepared: Prepared) -> None:
    told = on_gpu(prepared)
    (device,), (place,) = told.devices, told.placement
    assert (device.kind, device.name, device.uuid) == ("gpu", A770, UUID)
    assert (told.asked_placement, place.device, place.matmul_share) == ("GPU", "GPU", 1.0)
    assert place.operations == {
        "Gather": 1, "rms": 1, "kv_cache": 1, "scaled_dot_product_attention": 1, "FullyConnected": 2,
    }  # fmt: skip
    assert misplaced(told) is None and told.threads is None


def test_execution_elsewhere_makes_the_record_invalid(prepared: Prepared) -> None:
    reason = misplaced(on_gpu(prepared, executes=("CPU",)))
    assert reason and reason.startswith("asked for GPU, but CPU executes 2 FullyConnected")
    assert misplaced(on_gpu(prepared, device="HETERO:GPU,CPU", executes=("CPU", "GPU.0"))) is None
    reason = misplaced(on_gpu(prepared, device="HETERO:GPU,CPU", executes=("GPU.0",)))
    assert reason and reason.startswith("asked for HETERO:GPU,CPU, but GPU executes")


@pytest.mark.parametrize(
    ("kind", "told", "per_token", "suffix"),
    [("f16", "f16", 2 * 2 * 64 * 2, ""), ("i8", "i8", 2 * 2 * (64 + 2 * 8), "+kv8"), ("dynamic", "f16", 512, "")],
)
def test_the_cache_is_as_the_plugin_tells(
    prepared: Prepared, kind: str, told: str, per_token: int, suffix: str
) -> None:
    """Two layers of two heads of 32 numbers; 8-bit ones with a scale and a zero point for every token and head."""
    found = on_gpu(prepared, kv_cache=kind)
    assert (found.kv_cache, found.kv_bytes_per_token) == (told, per_token)
    assert found.precision_classes == (f"a8-token+f16{suffix}", f"f16{suffix}")


def test_a_cache_that_hetero_does_not_tell_of_is_taken_for_the_arithmetics(prepared: Prepared) -> None:
    assert on_gpu(prepared, device="HETERO:GPU,CPU", executes=("GPU.0", "CPU"), kv_cache="i8").kv_cache == "f16"


def test_the_property_has_the_word_where_no_rounding_explains(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounding, "found", lambda *asked: None)
    declared = {0: "f16", 32: "a8-g32", 128: "a8-token", 2**64 - 1: "a8-token"}
    assert {group: on_gpu(prepared, group=group).prefill.activations for group in declared} == declared


def test_kernels_from_an_earlier_launch_are_evidence(prepared: Prepared) -> None:
    def sources(told: SessionFacts) -> set[str]:
        return {entry.source for entry in told.evidence}

    cached = "CompiledModel.get_property('LOADED_FROM_CACHE')"
    assert cached in sources(on_gpu(prepared, loaded_from_cache=True)) and cached not in sources(on_gpu(prepared))


def test_weights_are_counted_as_they_are_held(prepared: Prepared, tmp_path: Path) -> None:
    table = 300 * 128 + 300 * 2
    untied = on_gpu(prepared)
    assert (untied.weights, untied.embedding_bytes) == ("int8 row", table)
    tied = on_gpu(prepared_as(tmp_path, arch={"tied": True}))
    assert tied.embedding_bytes == 0 and tied.resident_weight_bytes == (untied.resident_weight_bytes or 0) - table
    through, without = decode_traffic(tied), decode_traffic(untied)
    assert through and without and through.weight_bytes == without.weight_bytes


@pytest.mark.parametrize(("scheme", "told"), [("int4", "int4 group 32"), ("fp16", "f16"), ("bf16", "bf16")])
def test_weights_are_named_as_they_are_coded(tmp_path: Path, scheme: str, told: str) -> None:
    assert on_gpu(prepared_as(tmp_path, scheme=scheme)).weights == told


def test_on_this_cpu(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    options = {**OPTIONS, "inference_precision": "f32", "threads": 1}
    told = read(prepared, devices.core(), replace(CASE, device=None, options=options))
    assert (told.prefill.compute, told.kv_cache, told.threads, told.path) == ("f32", "u8", 1, None)
    assert told.prefill.activations == told.decode.activations
    assert misplaced(told) is None
    assert told.placement[0].operations["FullyConnected"] == 2 * 5 + 1  # Q, K and V are one product
    assert "FullyConnected" in told.decode.kernels["matmul"] and "f32" in told.decode.kernels["matmul"]
    sources = [entry.source for entry in told.evidence]
    assert "CompiledModel.get_property('RUNTIME_REQUIREMENTS')" in sources and "environment" not in sources
    exact = read(prepared, devices.core(), replace(CASE, device=None, fidelity="exact"))
    assert exact.precision_classes == ("f32",) and exact.kv_cache == "f32"


def test_a_lowered_instruction_set_is_evidence(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN reads the variable once, when it is loaded; the evidence names what the process was given."""
    monkeypatch.setitem(os.environ, "ONEDNN_MAX_CPU_ISA", "AVX2")
    claims = [entry.claim for entry in on_gpu(prepared).evidence if entry.source == "environment"]
    assert claims == ["ONEDNN_MAX_CPU_ISA=AVX2"]


WEIGHT = Codes.dense(
    "int8",
    np.random.default_rng(0).integers(-127, 128, (96, 256)).astype(np.int8),
    np.repeat(np.float16(2) ** -np.random.default_rng(1).integers(5, 9, (96, 1)), 8, axis=1).astype(np.float16),
)


def a_product(round_inputs: Callable[[Float32], Float32]) -> Callable[[list[Float32]], list[Float32]]:
    """A compiled product whose kernels round their inputs as they are told, and the results to half precision."""
    return lambda inputs: [(round_inputs(inputs[0]) @ WEIGHT.values().T).astype(np.float16).astype(np.float32)]


@pytest.mark.parametrize("rows", [1, 16, 128])
@pytest.mark.parametrize("compute", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("name", [None, "a8-g32", "a8-token", "a8-tensor"])
def test_each_rounding_is_found(name: Activations | None, compute: Compute, rows: int) -> None:
    """The kernels round as the reference's classes do: written apart from the probe."""
    declared: Activations = name or compute

    def rounds(inputs: Float32) -> Float32:
        held = PrecisionClass(compute).activation(inputs)
        return PrecisionClass(name).linear_input(held) if name else held

    expected = "a8-token" if declared == "a8-tensor" and rows == 1 else declared
    assert rounding.found(a_product(rounds), WEIGHT, rows, compute) == expected


@pytest.mark.parametrize(
    "rounds",
    [
        lambda inputs: np.rint(inputs * 36) / 36,  # int8 with a scale that nobody declares
        lambda inputs: inputs[::-1],  # not this product at all
        lambda inputs: np.zeros_like(inputs),
    ],
)
def test_what_no_rounding_explains_is_none(rounds: Callable[[Float32], Float32]) -> None:
    assert rounding.found(a_product(rounds), WEIGHT, 16, "f32") is None


def test_silent_layers_are_counted() -> None:
    found = [Layer("FullyConnected", "brgemm_avx512_f32", "i8"), Layer("FullyConnected", "unknown_f32", "f32")]
    assert runtime_model.kernels(found) == {"matmul": "1 × FullyConnected brgemm_avx512_f32 (i8), 1 without a name"}
    assert runtime_model.kernels([Layer("Reshape", "", "")]) == {}
    kinds = ("ReadValue", "read_value", "ShapeOf", "shape_of", "Const", "Add", "Add")
    assert runtime_model.operations([Layer(kind, "", "") for kind in kinds]) == {"Add": 2}
