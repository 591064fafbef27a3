"""Synthetic artifacts: bits that depend on nothing but their key, and a file that others read."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.artifacts import weights
from bench.artifacts.layout import STORED_TYPES, TensorSpec, inv_freq, tensor_specs
from bench.artifacts.reader import open_artifact
from bench.artifacts.synthesize import artifact_bytes, synthesize
from bench.artifacts.tokenizer import CONTROL, build_vocabulary
from bench.artifacts.weights import TensorRecipe, standard_deviation
from bench.errors import UsageError
from bench.types import Arch
from tests.tiny import LLAMA3_SCALING, tiny_arch

SCHEMES = ["int8", "int4", "fp16", "bf16"]


def recipe(name: str, scheme: str = "int8", model: str = "tiny", seed: int = 0, **changes: Any) -> TensorRecipe:
    arch = tiny_arch(**changes)
    spec = next(spec for spec in tensor_specs(arch, scheme) if spec.name == name)
    return TensorRecipe(arch=arch, model=model, seed=seed, spec=spec)


def content(given_recipe: TensorRecipe) -> bytes:
    return b"".join(given_recipe.chunks())


def test_processes_change_no_bit(tmp_path: Path) -> None:
    digests = set()
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        written = synthesize(folder, model="tiny", arch=tiny_arch(), scheme="int8", processes=processes)
        digests.add((written.digest, (folder / "model.gguf").read_bytes()))
    assert len(digests) == 1


def test_bits_are_pinned(tmp_path: Path) -> None:
    """Other machines and numpy versions must make these very bits; a change of them raises WEIGHTS_VERSION."""
    assert weights.WEIGHTS_VERSION == 1
    found = {
        scheme: synthesize(tmp_path, model="tiny", arch=tiny_arch("qwen2"), scheme=scheme).digest[:16]
        for scheme in SCHEMES
    }
    assert found == {
        "int8": "612b89338832ff87",
        "int4": "074de9a006843774",
        "fp16": "f026edb58bf8b3ff",
        "bf16": "e8121ab387af382c",
    }


@pytest.mark.parametrize("scheme", SCHEMES)
def test_chunks_change_no_bit(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = content(recipe("blk.1.ffn_down.weight", scheme))
    monkeypatch.setattr(weights, "CHUNK_BYTES", 160 * 7)
    pieces = list(recipe("blk.1.ffn_down.weight", scheme).chunks())
    assert len(pieces) > 5 and b"".join(pieces) == whole


def test_model_tensor_and_seed_each_change_the_bits() -> None:
    base = content(recipe("blk.0.ffn_up.weight"))
    assert content(recipe("blk.0.ffn_up.weight")) == base
    others = [
        recipe("blk.1.ffn_up.weight"),
        recipe("blk.0.ffn_up.weight", seed=1),
        recipe("blk.0.ffn_up.weight", model="x"),
    ]
    assert len({base, *(content(other) for other in others)}) == 4


@given(st.floats(1e-6, 1e4))
def test_rounded_scales_are_near_and_short(value: float) -> None:
    rounded = float(weights.round_bits(np.array([value]), 4)[0])
    assert abs(rounded - value) <= value / 16
    assert math.frexp(rounded)[0] * 16 == int(math.frexp(rounded)[0] * 16)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["int8", "int4"]),
    st.integers(1, 80),
    st.sampled_from([64, 2048, 8192]),
    st.sampled_from([96, 28672]),
)
def test_code_times_scale_is_exact_in_fp16(scheme: str, layers: int, hidden: int, ffn: int) -> None:
    arch = tiny_arch(layers=layers, hidden=hidden, ffn=ffn)
    for name in ("blk.0.ffn_down.weight", "blk.0.attn_q.weight", "token_embd.weight"):
        spec = next(spec for spec in tensor_specs(arch, scheme) if spec.name == name)
        narrow = replace(spec, shape=(8, spec.shape[1]))
        raw = content(TensorRecipe(arch=arch, model="tiny", seed=0, spec=narrow))
        blocks = np.frombuffer(raw, STORED_TYPES[narrow.scheme]).reshape(8, -1)
        scales = blocks["scale"].astype(np.float32)
        assert scales.min() >= 2.0**-14
        assert (np.ldexp(np.frexp(scales)[0], 4) % 1 == 0).all()
        products = np.outer(np.arange(-127, 128, dtype=np.float32), np.unique(scales))
        assert (products == products.astype(np.float16)).all()


def test_codes_and_scales_have_the_promised_shape(tmp_path: Path) -> None:
    synthesize(tmp_path, model="tiny", arch=tiny_arch(), scheme="int8")
    tensor = open_artifact(tmp_path).tensor("token_embd.weight")
    codes, scales = tensor.codes().astype(float), tensor.scales()
    assert (codes.min(), codes.max()) == (-127, 127)
    assert codes.std() == pytest.approx(36, rel=0.05) and abs(codes.mean()) < 1
    assert (scales == scales[:, :1]).all() and len(np.unique(scales)) > 8
    assert tensor.values().std() == pytest.approx(1.0, rel=0.05)


def test_int4_scales_differ_within_a_row_and_vocabulary_stays_int8(tmp_path: Path) -> None:
    synthesize(tmp_path, model="tiny", arch=tiny_arch(), scheme="int4")
    artifact = open_artifact(tmp_path)
    tensor = artifact.tensor("blk.0.ffn_down.weight")
    assert tensor.scheme == "int4" and (tensor.codes().min(), tensor.codes().max()) == (-8, 7)
    assert (tensor.scales()[:, 0] != tensor.scales()[:, 1]).any()
    assert artifact.tensor("token_embd.weight").scheme == artifact.tensor("output.weight").scheme == "int8"


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_norms_and_biases_are_never_trivial(family: str, tied: bool, tmp_path: Path) -> None:
    synthesize(tmp_path, model="tiny", arch=tiny_arch(family, tied=tied), scheme="int8")
    artifact = open_artifact(tmp_path)
    vectors = {
        name: artifact.tensor(name).values() for name in artifact.names() if len(artifact.tensor(name).shape) == 1
    }
    assert vectors
    for name, values in vectors.items():
        assert (values.view(np.uint32) & 0xFFFF == 0).all(), f"{name} is not exact in bf16"
        assert values.std() > 0.02 and not (values == 1).any() and not (values == 0).all()
        if name.endswith("norm.weight") and "_q_" not in name and "_k_" not in name and not (tied and "output" in name):
            assert values.min() >= 0.5 and values.max() <= 1.5


def test_large_models_keep_their_balance_and_a_scale_of_their_own_per_row() -> None:
    arch = tiny_arch(layers=80, hidden=8192, heads=64, kv_heads=8, head_dim=128, ffn=28672)
    up, down = (standard_deviation(arch, f"blk.0.{name}.weight") for name in ("ffn_up", "ffn_down"))
    assert up * down == pytest.approx(3.2 / math.sqrt(8192) / math.sqrt(28672 * 160))
    for name in ("attn_output", "ffn_down"):
        spec = TensorSpec(name=f"blk.0.{name}.weight", scheme="int8", shape=(256, 64))
        raw = content(TensorRecipe(arch=arch, model="tiny", seed=0, spec=spec))
        assert len(np.unique(np.frombuffer(raw, STORED_TYPES["int8"])["scale"])) > 8


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_gguf_package_reads_equal_numbers(scheme: str, tmp_path: Path) -> None:
    arch = tiny_arch(rope_scaling=LLAMA3_SCALING)
    synthesize(tmp_path, model="tiny", arch=arch, scheme=scheme)
    artifact, reader = open_artifact(tmp_path), gguf.GGUFReader(tmp_path / "model.gguf")
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert list(found) == [*artifact.names(), "rope_freqs.weight"]
    for name, tensor in found.items():
        codes = artifact.tensor(name)
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(codes.shape)
        in_order = numbers if codes.order is None else numbers[codes.order]
        assert np.array_equal(codes.values(), in_order), name
    plain = inv_freq(tiny_arch())
    assert np.allclose(plain / found["rope_freqs.weight"].data, artifact.inv_freq(), rtol=1e-6)
    assert not np.allclose(plain, artifact.inv_freq(), rtol=0.1)


def test_metadata_is_what_llama_cpp_asks_for(tmp_path: Path) -> None:
    arch = tiny_arch("qwen3", head_dim=48)
    synthesize(tmp_path, model="tiny", arch=arch, scheme="int8")
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    values = {name: field.contents() for name, field in fields.items()}
    assert values["general.architecture"] == "qwen3" and values["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0
    assert values["qwen3.attention.key_length"] == values["qwen3.rope.dimension_count"] == 48
    assert values["qwen3.attention.head_count_kv"] == 2 and values["qwen3.block_count"] == 2
    assert values["tokenizer.ggml.model"] == "gpt2" and values["tokenizer.ggml.pre"] == "qwen2"
    assert len(values["tokenizer.ggml.tokens"]) == len(values["tokenizer.ggml.token_type"]) == arch.vocab


@pytest.mark.parametrize("size", [1, 5, 258, 300, 152064])
def test_vocabulary_has_its_size_and_every_merge_makes_a_token(size: int) -> None:
    vocabulary = build_vocabulary(size)
    assert len(vocabulary.tokens) == len(set(vocabulary.tokens)) == len(vocabulary.types) == size
    known = set(vocabulary.tokens)
    for merge in vocabulary.merges:
        left, right = merge.split(" ")
        assert left in known and right in known and left + right in known
    assert len(vocabulary.merges) == max(0, size - 258)
    assert not any(character.isspace() for token in vocabulary.tokens for character in token)
    if size > 1:
        assert vocabulary.types[vocabulary.eos_id] == vocabulary.types[vocabulary.bos_id] == CONTROL


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("vocab", [32, 300, 40000])
def test_the_estimate_of_the_disk_holds(family: str, vocab: int, tmp_path: Path) -> None:
    arch = tiny_arch(family, vocab=vocab)
    synthesize(tmp_path, model="a model with a rather long name", arch=arch, scheme="int4")
    written = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert written < artifact_bytes(arch, "int4") < 2 * written + (1 << 17)


@pytest.mark.parametrize(
    ("arch", "scheme", "names"),
    [
        (tiny_arch(), "int3", "int3"),
        (tiny_arch(hidden=100), "int8", "hidden = 100"),
        (tiny_arch(head_dim=31), "int8", "124"),
        (tiny_arch(kv_heads=3), "int8", "kv_heads = 3"),
        (tiny_arch(vocab=0), "int8", "vocab = 0"),
    ],
)
def test_numbers_that_make_no_model_are_refused(arch: Arch, scheme: str, names: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=names):
        synthesize(tmp_path, model="tiny", arch=arch, scheme=scheme)
    assert not list(tmp_path.iterdir())
