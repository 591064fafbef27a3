"""What a session of `llamacpp` is said to do: read from real graphs of tiny models, and from graphs moved to GPUs."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from backends.llamacpp import facts, rounding
from backends.llamacpp.library import library
from bench.attest import decode_traffic, misplaced
from bench.facts import SessionFacts, precision_class
from tests.llamacpp_models import Models

PADDED = 256
"""Positions that llama.cpp allocates for a cache of CAPACITY."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("llamacpp"))


def read(models: Models, scheme: str = "int8", **changes: Any) -> SessionFacts:
    with models.opened(scheme, **changes) as session:
        return session.facts()


def classes(told: SessionFacts) -> tuple[str, ...]:
    """Of decode, of the path, of a prefill."""
    phases = (told.decode, told.path or told.prefill, told.prefill)
    return tuple(precision_class(phase, told.kv_cache) for phase in phases)


@pytest.mark.parametrize(
    ("scheme", "changes", "decode", "path", "prefill"),
    [
        ("int8", {"prompt": 64}, "a8-g32", "a8-g32", "a8-g32"),
        ("int4", {"prompt": 64}, "a8-g32", "a8-g32", "a8-g32"),
        ("bf16", {"prompt": 64}, "a16-bf16", "a16-bf16", "a16-bf16"),
        ("fp16", {"prompt": 64}, "a16-f16+sum16", "a16-f16+sum16", "a16-f16"),
        ("fp16", {"prompt": 63}, "a16-f16+sum16", "a16-f16+sum16", "a16-f16+sum16"),
        ("fp16", {"prompt": 64, "n_ubatch": 32}, "a16-f16+sum16", "a16-f16+sum16", "a16-f16+sum16"),
        ("fp16", {"prompt": 64, "n_batch": 32}, "a16-f16+sum16", "a16-f16+sum16", "a16-f16+sum16"),
        ("fp16", {"prompt": 32, "batch": 4}, "a16-f16+sum16", "a16-f16+sum16", "a16-f16+sum16"),
        ("fp16", {"prompt": 64, "flash_attn": "off"}, "a16-f16", "a16-f16", "a16-f16"),
        ("fp16", {"type_k": "q8_0", "type_v": "q8_0"}, "a16-f16+kv8", "a16-f16+kv8", "a16-f16+kv8"),
        ("int8", {"type_k": "q8_0", "type_v": "q8_0"}, "a8-g32+kv8", "a8-g32+kv8", "a8-g32+kv8"),
        ("int8", {"exact": True, "prompt": 64}, "f32", "f32", "f32"),
        ("bf16", {"exact": True, "type_k": "q8_0", "flash_attn": "on"}, "f32", "f32", "f32"),
    ],
)
def test_the_class_of_each_phase(
    models: Models, scheme: str, changes: dict[str, Any], decode: str, path: str, prefill: str
) -> None:
    """Below 64 queries of a row ggml's fused attention on the CPU adds up in float16 (ggml-cpu/ops.cpp)."""
    told = read(models, scheme, **changes)
    assert classes(told) == (decode, path, prefill)
    changes_at_64 = told.prefill.attention_sums != told.decode.attention_sums
    assert (told.path is not None) == changes_at_64 and told.decode == (told.path or told.decode)


def test_the_probe_says_what_ggml_pairs(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no rounding explains the product, the type of the weights has the word: the same here."""
    probed = {scheme: read(models, scheme).decode.activations for scheme in ("int8", "int4", "fp16", "bf16")}
    monkeypatch.setattr(rounding, "found", lambda *asked: None)
    assert {scheme: read(models, scheme).decode.activations for scheme in probed} == probed


def test_types_are_paired_as_ggml_does() -> None:
    """`vec_dot_type` of every type that the library's CPU can multiply with."""

    class Traits(ctypes.Structure):
        _fields_ = (("from_float", ctypes.c_void_p), ("vec_dot", ctypes.c_void_p), ("vec_dot_type", ctypes.c_int),
                    ("rows", ctypes.c_int64))  # fmt: skip

    from llama_cpp._ctypes_extensions import load_shared_library

    lib = library()
    traits = load_shared_library("llama", Path(lib.api.__file__).parent / "lib").ggml_get_type_traits_cpu
    traits.restype, traits.argtypes = ctypes.POINTER(Traits), (ctypes.c_int,)
    name = {kind: lib.ggml_type_name(kind).decode() for kind in range(40)}
    paired = {name[kind]: name[traits(kind)[0].vec_dot_type] for kind in name if traits(kind)[0].vec_dot}
    rounds = {"f32": "f32", "f16": "f16", "bf16": "bf16", "q8_0": "a8-g32", "q8_1": "a8-g32", "q8_K": "a8-g256"}
    assert len(paired) > 20
    assert {kind: facts.paired(kind) for kind in paired} == {kind: rounds[other] for kind, other in paired.items()}


@pytest.mark.parametrize(("option", "told"), [("auto", "FLASH_ATTN_EXT"), ("off", "MUL_MAT, SOFT_MAX, MUL_MAT")])
def test_kernels_are_as_ggml_names_them(models: Models, option: str, told: str) -> None:
    found = read(models, flash_attn=option, repack=False, arch={"tied": False}).decode.kernels
    layers = 2 * 7
    assert found["attention"] == told
    assert found["matmul"].startswith("MUL_MAT q8_0 in CPU") and found["matmul"].endswith(f"×{layers + 1}")
    assert found["embedding"].startswith("GET_ROWS q8_0 in CPU")


@pytest.mark.parametrize(("kind", "size"), [("f32", 4.0), ("f16", 2.0), ("bf16", 2.0), ("q8_0", 34 / 32)])
def test_the_cache_is_as_asked_and_as_large_as_allocated(models: Models, kind: str, size: float) -> None:
    with models.opened(type_k=kind, type_v=kind) as session:
        told, (memory,) = session.facts(), session.memory()
        assert (told.kv_cache, told.kv_bytes_per_token) == (kind, 2 * 2 * 64 * size)
        assert memory.kv_bytes == 2 * 2 * 64 * size * PADDED
        (line,) = [entry.claim for entry in told.evidence if "KV buffer size" in entry.claim]
        assert float(line.split("=")[1].split()[0]) == pytest.approx(memory.kv_bytes / 2**20, abs=0.006)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("scheme", ["int8", "int4", "fp16"])
def test_weights_are_counted_as_they_are_held(models: Models, scheme: str, tied: bool) -> None:
    artifact = models.made(scheme, family="qwen2", tied=tied).artifact
    sizes = {name: artifact.tensor(name).data.nbytes for name in artifact.names()}
    told = read(models, scheme, arch={"family": "qwen2", "tied": tied})
    table = sizes["token_embd.weight"]
    assert told.resident_weight_bytes == sum(sizes.values())
    assert told.embedding_bytes == (0 if tied else table)
    traffic = decode_traffic(told)
    assert traffic and traffic.weight_bytes == sum(sizes.values()) - (0 if tied else table)
    elements = sum(int(artifact.tensor(name).values().size) for name in artifact.names())
    exact = read(models, scheme, exact=True, arch={"family": "qwen2", "tied": tied})
    output_bias, head = 300, 300 * 128 if tied else 0  # llama.cpp asks for them; zeros, and the table again
    assert exact.resident_weight_bytes == 4 * (elements + output_bias + head)


def test_exact_is_f32_everywhere(models: Models) -> None:
    told = read(models, "int4", exact=True)
    assert (told.weights, told.kv_cache, told.precision_classes, told.path) == ("f32", "f32", ("f32",), None)
    assert {"every weight of the file widened to float32"} <= {entry.claim for entry in told.evidence}
    assert told.decode.kernels["attention"] == "MUL_MAT, SOFT_MAX, MUL_MAT"


def test_weights_are_named_as_they_are_coded(models: Models) -> None:
    schemes = {"int8": "q8_0 group 32", "int4": "q4_0 group 32", "fp16": "f16", "bf16": "bf16"}
    assert {scheme: read(models, scheme, repack=False).weights for scheme in schemes} == schemes


def test_threads_are_told(models: Models) -> None:
    told = read(models, threads=1, threads_batch=2)
    claims = {entry.source: entry.claim for entry in told.evidence}
    assert told.threads == 1
    assert claims["llama_n_threads, llama_n_threads_batch"] == "1 for decode steps, 2 for prefills"


def test_the_instruction_set_is_the_most_capable_compiled_in(models: Models) -> None:
    told = read(models)
    features = library().features()
    assert told.isa is None or f"{told.isa} = 1" in features
    assert facts._isa("CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | AVX512 = 0 | LLAMAFILE = 1 | REPACK = 1 | ") == "AVX2"
    assert facts._isa("CPU : NEON = 1 | ") is None


@pytest.mark.parametrize(("n_ubatch", "largest"), [(512, 64), (32, 32)])
def test_evidence_names_its_origins(models: Models, n_ubatch: int, largest: int) -> None:
    told = read(models, prompt=64, n_ubatch=n_ubatch)
    claims = [entry.claim for entry in told.evidence if entry.source == "llama.cpp's log"]
    assert any("model buffer size" in claim for claim in claims) and any("KV buffer" in claim for claim in claims)
    rounds = "inputs and outputs of the product with blk.0.attn_output.weight"
    assert [entry.claim for entry in told.evidence if entry.source == rounds] == [
        f"rounds its inputs as a8-g32 at 1 rows, a8-g32 at 16 rows, a8-g32 at {largest} rows"
    ]


def test_on_the_cpu_all_is_where_it_was_asked(models: Models) -> None:
    told = read(models)
    (place,), (device,) = told.placement, told.devices
    assert (told.asked_placement, place.device, place.matmul_share, device.kind) == ("CPU", "CPU", 1.0, "cpu")
    assert place.operations["MUL_MAT"] == 15 and not set(place.operations) & {"GET_ROWS", "SET_ROWS", "VIEW"}
    assert misplaced(told) is None
