"""The float32 reference against Hugging Face transformers, and what it says about precision classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.artifacts import forward as forward_module
from bench.artifacts.forward import forward
from bench.artifacts.noise import CLASSES, PrecisionClass, round_a8, round_bf16, round_kv8
from bench.artifacts.reader import CanonicalArtifact, open_artifact
from bench.artifacts.reference import gate_ids
from bench.artifacts.synthesize import synthesize
from bench.types import Arch, Float32, Int32
from tests.tiny import LLAMA3_SCALING, tiny_arch

FAMILIES = {
    "llama": tiny_arch("llama"),
    "llama-tied": tiny_arch("llama", tied=True),
    "llama3-rope": tiny_arch("llama", rope_scaling=LLAMA3_SCALING),
    "qwen2": tiny_arch("qwen2", rope_theta=1e6),
    "qwen2-tied": tiny_arch("qwen2", tied=True, norm_eps=1e-6),
    "qwen3": tiny_arch("qwen3", head_dim=48),
    "qwen3-tied": tiny_arch("qwen3", head_dim=16, tied=True),
}


def artifact_of(folder: Path, arch: Arch, scheme: str = "int8") -> CanonicalArtifact:
    synthesize(folder, model="tiny", arch=arch, scheme=scheme)
    return open_artifact(folder)


def relative_error(value: Float32, reference: Float32) -> float:
    centred = reference - reference.mean(axis=-1, keepdims=True)
    return float(np.linalg.norm(value - reference) / np.linalg.norm(centred))


@pytest.mark.parametrize("name", FAMILIES)
def test_agrees_with_transformers(name: str, tmp_path: Path) -> None:
    artifact = artifact_of(tmp_path, FAMILIES[name])
    ids = np.resize(gate_ids(artifact), 200)  # past LLAMA3_SCALING's original context
    assert relative_error(forward(artifact, ids)["f32"], transformers_logits(artifact, ids)) < 1e-5


def test_rope_scaling_matters_to_the_comparison(tmp_path: Path) -> None:
    scaled = artifact_of(tmp_path, FAMILIES["llama3-rope"])
    (tmp_path / "plain").mkdir()
    plain = artifact_of(tmp_path / "plain", FAMILIES["llama"])
    ids = np.resize(gate_ids(scaled), 200)
    assert relative_error(forward(plain, ids)["f32"], forward(scaled, ids)["f32"]) > 0.05


@pytest.mark.parametrize("scheme", ["int4", "fp16", "bf16"])
def test_reads_every_scheme(scheme: str, tmp_path: Path) -> None:
    artifact = artifact_of(tmp_path, FAMILIES["llama"], scheme)
    ids = gate_ids(artifact)
    assert relative_error(forward(artifact, ids)["f32"], transformers_logits(artifact, ids)) < 1e-5


def test_blocks_of_rows_and_queries_do_not_change_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = artifact_of(tmp_path, FAMILIES["qwen2"])
    ids = gate_ids(artifact)
    whole = forward(artifact, ids)["f32"]
    monkeypatch.setattr("bench.artifacts.forward.WEIGHT_BYTES", 4 * 96 * 7)
    monkeypatch.setattr("bench.artifacts.forward.SCORE_BYTES", 4 * 4 * 32 * 5)
    blocked = forward(artifact, ids)["f32"]
    assert relative_error(blocked, whole) < 1e-5
    assert relative_error(forward(artifact, ids, keep=3)["f32"], whole[-3:]) < 1e-5


def test_is_causal(tmp_path: Path) -> None:
    artifact = artifact_of(tmp_path, FAMILIES["qwen3"])
    ids = gate_ids(artifact)
    changed = ids.copy()
    changed[20:] = changed[20:][::-1]
    first, second = forward(artifact, ids)["f32"], forward(artifact, changed)["f32"]
    assert relative_error(first[:20], second[:20]) < 1e-5
    assert relative_error(first[20:], second[20:]) > 0.1


def test_classes_stay_apart_and_do_not_disturb_each_other(tmp_path: Path) -> None:
    artifact = artifact_of(tmp_path, FAMILIES["llama"])
    ids = gate_ids(artifact)
    logits = forward(artifact, ids, CLASSES)
    error = {name: relative_error(logits[name], logits["f32"]) for name in CLASSES}
    assert error["f32"] == 0
    assert 0 < error["f16"] < error["bf16"] / 4
    assert error["a8-g32"] * 1.25 < error["a8-token"] < error["a8-tensor"]
    assert error["f16"] < error["f32+kv8"] < error["a8-g32+kv8"]
    assert max(error["a8-g32"], error["bf16"]) < error["a8-g32+bf16"] < error["a8-token+bf16"]
    both = (error["a8-g32"] ** 2 + error["bf16"] ** 2) ** 0.5
    assert 0.8 < error["a8-g32+bf16"] / both < 1.25, "independent roundings add up as squares do"
    for name in ("bf16", "a8-tensor+kv8", "a8-g32+bf16+kv8"):
        assert relative_error(forward(artifact, ids, [name])[name], logits[name]) < error[name] / 4


def test_gate_ids_are_fixed_and_different() -> None:
    class Sized:
        def __init__(self, vocab: int):
            self.arch = tiny_arch(vocab=vocab)

    def ids(vocab: int) -> list[int]:
        sized: Any = Sized(vocab)
        return [int(i) for i in gate_ids(sized)]

    assert ids(152064) == ids(152064)
    assert ids(152064)[:4] == [65440, 84268, 68052, 53707]
    for vocab in (32, 33, 300, 152064):
        assert len(set(ids(vocab))) == 32 and min(ids(vocab)) >= 0 and max(ids(vocab)) < vocab
    assert len(ids(5)) == 32 and set(ids(5)) == set(range(5))


def test_a_class_rounds_what_its_id_says() -> None:
    values = np.linspace(-3, 2, 64, dtype=np.float32).reshape(1, 2, 32) ** 3
    both, plain = PrecisionClass("a8-g32+bf16+kv8"), PrecisionClass("a8-token")
    assert (both.activation(values) == round_bf16(values)).all()
    assert (both.linear_input(values) == round_a8(values, axis=-1)).all(), "its rows are a group each"
    assert (both.cached(values) == round_kv8(values)).all()
    assert (plain.linear_input(values) == round_a8(values, axis=-1)).all()
    assert plain.activation(values) is values and plain.cached(values) is values
    assert (PrecisionClass("a8-token+f16").activation(values) == values.astype(np.float16)).all()


def test_roundings() -> None:
    values = np.array([[1.0, -127.0, 0.4, 63.6], [0.0, 0.0, 0.0, 0.0]], np.float32)
    assert round_a8(values, axis=-1).tolist() == [[1, -127, 0, 64], [0, 0, 0, 0]]
    assert round_bf16(np.array([1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-9)], np.float32)).tolist() == [1, 1 + 2**-6, -1]
    ramp = np.linspace(-3, 2, 256, dtype=np.float32)
    assert np.allclose(round_kv8(ramp), ramp, atol=1e-6)
    assert np.abs(round_kv8(ramp[:-1] ** 2) - ramp[:-1] ** 2).max() > 1e-3
    assert round_kv8(np.full(4, 7, np.float32)).tolist() == [7] * 4
    with pytest.raises(ValueError, match="a8-row"):
        PrecisionClass("a8-row")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_synthetic_weights_make_a_model_worth_gating(
    family: str, tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores and logits spread as in trained models, norms stay stable, and no token merely predicts itself."""
    arch = tiny_arch(family, layers=12, hidden=256, heads=8, kv_heads=4, ffn=704, vocab=2000, tied=tied)
    spreads: list[float] = []

    def noted(scores: Float32) -> Float32:
        last = scores[0, ..., -1, :]
        spreads.append(float(last.std(axis=-1).mean()))
        return softmax(scores)

    softmax = forward_module._softmax
    monkeypatch.setattr(forward_module, "_softmax", noted)
    artifact = artifact_of(tmp_path, arch)
    ids = gate_ids(artifact)
    logits = forward(artifact, ids)["f32"]
    assert 1.2 < np.mean(spreads) < 1.8 and 1.0 < min(spreads) < max(spreads) < 2.2
    assert 2.2 < logits.std(axis=-1).mean() < 3.0
    best = logits.argmax(axis=-1)
    assert (best == ids).mean() < 0.1 and len(set(best.tolist())) > 16


def transformers_logits(artifact: CanonicalArtifact, ids: Int32) -> Float32:
    """[positions, vocab] of transformers' own model of the family, given the artifact's weights."""
    torch: Any = pytest.importorskip("torch", reason="the reference is checked where torch is installed")
    transformers: Any = pytest.importorskip("transformers", reason="the reference is checked against transformers")
    arch = artifact.arch
    family = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[arch.family]
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": arch.rope_theta}
    if scaling := arch.rope_scaling:
        rope |= {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_context,
        }
    config = getattr(transformers, family + "Config")(
        vocab_size=arch.vocab,
        hidden_size=arch.hidden,
        intermediate_size=arch.ffn,
        num_hidden_layers=arch.layers,
        num_attention_heads=arch.heads,
        num_key_value_heads=arch.kv_heads,
        head_dim=arch.head_dim,
        max_position_embeddings=arch.context,
        rms_norm_eps=arch.norm_eps,
        rope_parameters=rope,
        tie_word_embeddings=arch.tied,
        attn_implementation="eager",
    )
    model = getattr(transformers, family + "ForCausalLM")(config).eval()
    weights = {transformers_name(name): torch.from_numpy(artifact.tensor(name).values()) for name in artifact.names()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and missing == (["lm_head.weight"] if arch.tied else [])
    with torch.no_grad():
        logits: Float32 = model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0].numpy()
    return logits


def transformers_name(name: str) -> str:
    """`blk.0.attn_q.weight` is `model.layers.0.self_attn.q_proj.weight` there."""
    if name.startswith("blk."):
        _, layer, kind, suffix = name.split(".")
        place = {
            "attn_norm": "input_layernorm",
            "attn_q": "self_attn.q_proj",
            "attn_k": "self_attn.k_proj",
            "attn_v": "self_attn.v_proj",
            "attn_output": "self_attn.o_proj",
            "attn_q_norm": "self_attn.q_norm",
            "attn_k_norm": "self_attn.k_norm",
            "ffn_norm": "post_attention_layernorm",
            "ffn_gate": "mlp.gate_proj",
            "ffn_up": "mlp.up_proj",
            "ffn_down": "mlp.down_proj",
        }[kind]
        return f"model.layers.{layer}.{place}.{suffix}"
    return {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }[name]
