"""Which tensors a model has, how each is coded, and what the digest covers. Standard library and numpy only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from bench.api import GROUP, Q4_BLOCK, Q8_BLOCK, CodeScheme
from bench.errors import UsageError
from bench.types import Arch, Family

FORMAT_VERSION = 1
GGUF_NAME = "model.gguf"
TABLE_NAME = "tensors.json"
ROPE_FACTORS = "rope_freqs.weight"

STORED_TYPES: dict[CodeScheme, np.dtype[Any]] = {
    "int8": Q8_BLOCK,
    "int4": Q4_BLOCK,
    "f16": np.dtype("<f2"),
    "bf16": np.dtype("<u2"),
    "f32": np.dtype("<f4"),
}

MATRIX_SCHEMES: dict[str, tuple[CodeScheme, CodeScheme]] = {
    "int8": ("int8", "int8"),
    "int4": ("int4", "int8"),
    "fp16": ("f16", "f16"),
    "bf16": ("bf16", "bf16"),
}
"""Scheme of a model -> scheme of its layers' matrices, and of its embedding and lm_head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor as the file keeps it. `permuted_heads`: its rows are interleaved per head, as llama.cpp wants them."""

    name: str
    scheme: CodeScheme
    shape: tuple[int, ...]
    permuted_heads: int | None = None

    @property
    def row_bytes(self) -> int:
        return row_bytes(self.scheme, self.shape[-1])

    @property
    def bytes(self) -> int:
        return self.row_bytes * (self.shape[0] if len(self.shape) == 2 else 1)


def row_bytes(scheme: CodeScheme, columns: int) -> int:
    """Bytes of one row of `columns` numbers."""
    items = columns // GROUP if scheme in ("int8", "int4") else columns
    return items * STORED_TYPES[scheme].itemsize


def tensor_specs(arch: Arch, scheme: str) -> list[TensorSpec]:
    """Every tensor of the model in the order of the graph, `rope_freqs.weight` last where the rope is scaled.

    Raises UsageError for an unknown scheme and for numbers that cannot be coded in groups of 32.
    """
    check_arch(arch, scheme)
    matrix, vocab_matrix = MATRIX_SCHEMES[scheme]
    specs = [TensorSpec(name="token_embd.weight", scheme=vocab_matrix, shape=(arch.vocab, arch.hidden))]
    for layer in range(arch.layers):
        specs += _layer_specs(arch, f"blk.{layer}.", matrix)
    specs.append(TensorSpec(name="output_norm.weight", scheme="f32", shape=(arch.hidden,)))
    if not arch.tied:
        specs.append(TensorSpec(name="output.weight", scheme=vocab_matrix, shape=(arch.vocab, arch.hidden)))
    if arch.rope_scaling:
        specs.append(TensorSpec(name=ROPE_FACTORS, scheme="f32", shape=(arch.head_dim // 2,)))
    return specs


def _layer_specs(arch: Arch, prefix: str, matrix: CodeScheme) -> list[TensorSpec]:
    permuted = arch.family == "llama"  # llama.cpp rotates neighbours in this family, halves in the others

    def weight(name: str, rows: int, columns: int, heads: int | None = None) -> TensorSpec:
        return TensorSpec(
            name=f"{prefix}{name}.weight",
            scheme=matrix,
            shape=(rows, columns),
            permuted_heads=heads if permuted else None,
        )

    def vector(name: str, size: int) -> TensorSpec:
        return TensorSpec(name=prefix + name, scheme="f32", shape=(size,))

    specs = [
        vector("attn_norm.weight", arch.hidden),
        weight("attn_q", arch.q_rows, arch.hidden, arch.heads),
        weight("attn_k", arch.kv_rows, arch.hidden, arch.kv_heads),
        weight("attn_v", arch.kv_rows, arch.hidden),
    ]
    if arch.qkv_bias:
        specs += [
            vector("attn_q.bias", arch.q_rows),
            vector("attn_k.bias", arch.kv_rows),
            vector("attn_v.bias", arch.kv_rows),
        ]
    if arch.qk_norm:
        specs += [vector("attn_q_norm.weight", arch.head_dim), vector("attn_k_norm.weight", arch.head_dim)]
    return [
        *specs,
        weight("attn_output", arch.hidden, arch.q_rows),
        vector("ffn_norm.weight", arch.hidden),
        weight("ffn_gate", arch.ffn, arch.hidden),
        weight("ffn_up", arch.ffn, arch.hidden),
        weight("ffn_down", arch.hidden, arch.ffn),
    ]


def check_arch(arch: Arch, scheme: str) -> None:
    """Refuse numbers that make no model: UsageError names the first that is wrong."""
    if scheme not in MATRIX_SCHEMES:
        raise UsageError(f"unknown scheme {scheme!r}", remedy=f"use one of {', '.join(MATRIX_SCHEMES)}")
    if arch.family not in get_args(Family):
        raise UsageError(f"unknown family {arch.family!r}", remedy=f"use one of {', '.join(get_args(Family))}")
    for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "context"):
        if not 0 < getattr(arch, name) < 2**31:
            raise UsageError(f"{name} = {getattr(arch, name)} is no size", where="architecture")
    for name, width in (("hidden", arch.hidden), ("ffn", arch.ffn), ("heads × head_dim", arch.q_rows)):
        if width % GROUP:
            raise UsageError(f"{name} = {width} is no multiple of {GROUP}", where="architecture")
    if arch.heads % arch.kv_heads:
        raise UsageError(f"heads = {arch.heads} is no multiple of kv_heads = {arch.kv_heads}", where="architecture")
    if arch.head_dim % 2:
        raise UsageError(f"head_dim = {arch.head_dim} is odd: it cannot be rotated", where="architecture")


def reading_order(rows: int, heads: int) -> npt.NDArray[np.intp]:
    """Row of the file for each row in half-split order: undoes the permutation of llama.cpp's converter."""
    order: npt.NDArray[np.intp] = np.arange(rows, dtype=np.intp).reshape(heads, -1, 2).swapaxes(1, 2).ravel()
    return order


def rope_factors(arch: Arch) -> npt.NDArray[np.float64]:
    """[head_dim / 2] what each rotary frequency is divided by: Llama 3's scaling, or ones."""
    base = _unscaled_inv_freq(arch)
    scaling = arch.rope_scaling
    if scaling is None:
        return np.ones_like(base)
    turns = scaling.original_context * base / (2 * np.pi)
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    smooth = np.clip(smooth, 0, 1)
    factors: npt.NDArray[np.float64] = 1 / ((1 - smooth) / scaling.factor + smooth)
    return factors


def inv_freq(arch: Arch) -> npt.NDArray[np.float64]:
    """[head_dim / 2] rotary frequencies with scaling applied."""
    frequencies: npt.NDArray[np.float64] = _unscaled_inv_freq(arch) / rope_factors(arch)
    return frequencies


def _unscaled_inv_freq(arch: Arch) -> npt.NDArray[np.float64]:
    exponents = np.arange(0, arch.head_dim, 2, dtype=np.float64) / arch.head_dim
    frequencies: npt.NDArray[np.float64] = arch.rope_theta**-exponents
    return frequencies


def arch_to_json(arch: Arch) -> dict[str, Any]:
    """Plain numbers that `arch_from_json` reads back to an equal Arch."""
    return asdict(arch)


def arch_from_json(numbers: Mapping[str, Any]) -> Arch:
    """The Arch behind `arch_to_json`; TypeError for unknown or missing names."""
    return Arch.from_json(numbers)


def artifact_digest(arch: Arch, scheme: str, tensors: Iterable[tuple[TensorSpec, str]]) -> str:
    """Hex sha256 over architecture numbers, scheme, and each tensor's layout and the sha256 of its stored bytes."""
    content = {
        "format": FORMAT_VERSION,
        "arch": {name: _plain(value) for name, value in arch_to_json(arch).items()},
        "scheme": scheme,
        "tensors": [[spec.name, spec.scheme, list(spec.shape), spec.permuted_heads, sha] for spec, sha in tensors],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """1e6 and 1000000 are the same number in every spelling of a configuration."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
