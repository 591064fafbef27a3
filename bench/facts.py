"""What a session tells of itself: effective precision, placement, memory, each with where it was read.

None means "not known"; never 0, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from bench.types import Device, Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One claim and where it was read: an API call, a log line, a file."""

    source: str
    claim: str


PATH_ROWS = 16
"""Tokens a step feeds on the gate's path, after one token alone; no runtime changes its kernels just there."""

Activations = Literal["f32", "f16", "bf16", "a8-g32", "a8-g256", "a8-token", "a8-tensor"]
Compute = Literal["f32", "f16", "bf16"]
INT8_GROUP = 32
"""Inputs that share a scale in `a8-g32`."""
CLEAR = 0.5
"""A rounding is found where its residual is below this share of the second best's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFacts:
    """Effective precision of one phase: what the inputs of the matrix products are rounded to, and the arithmetic.

    `kernels` maps a kind of work ("matmul", "attention", "embedding") to the kernel that does it. `attention_sums` is
    the type that attention adds weighted values up in, position by position, where it is another than `compute`;
    `product_results` the type that all products give, attention's too, where it is another.
    """

    activations: Activations
    compute: Compute
    kernels: dict[str, str] = field(default_factory=dict)
    attention_sums: Literal["f16"] | None = None
    product_results: Literal["f16"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What the runtime put on one device: the share of the matrix products and the computing operations by kind.

    Host bookkeeping (shapes, indices) that a runtime always keeps on the CPU does not belong into `operations`; the
    adapter names it in its evidence.
    """

    device: str
    matmul_share: float
    operations: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """What a session really does, read back from the runtime; each item's origin stands in `evidence`.

    `path` is for steps of 2 to PATH_ROWS tokens of one row, where they compute otherwise than larger ones (`prefill`).
    `devices` are the ones that compute. `asked_placement` is the name that `placement` must carry for everything that
    computes. `resident_weight_bytes` is all weights as this runtime holds them; `embedding_bytes` the part that a
    decode step only looks rows up in (0 when the table serves as lm_head too). Both None where they cannot be known.
    `isa` is the instruction set that the runtime's kernels may use, in its own words: it can be less than the
    processor has.
    """

    weights: str
    prefill: PhaseFacts
    decode: PhaseFacts
    kv_cache: str
    devices: tuple[Device, ...]
    asked_placement: str
    placement: tuple[Placement, ...]
    threads: int | None
    resident_weight_bytes: int | None
    embedding_bytes: int | None
    kv_bytes_per_token: int | None
    path: PhaseFacts | None = None
    isa: str | None = None
    evidence: tuple[Evidence, ...] = ()

    @property
    def precision_classes(self) -> tuple[str, ...]:
        """Ids of all phases' classes, each once, sorted."""
        phases = (self.prefill, self.decode, self.path or self.prefill)
        return tuple(sorted({precision_class(phase, self.kv_cache) for phase in phases}))


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Memory of one device as the runtime's allocator counts it; None = cannot be known.

    `device_delta_bytes` is what it holds there now over what it held before the model was loaded.
    """

    device: str
    weights_bytes: int | None = None
    kv_bytes: int | None = None
    allocator_peak_bytes: int | None = None
    device_delta_bytes: int | None = None


def precision_class(phase: PhaseFacts, kv_cache: str) -> str:
    """The id of the error that a phase's declared precision predicts: `a8-g32`, `f32+kv8`, `a8-g32+bf16+kv8`, ..."""
    base: str = phase.compute if phase.activations == "f32" else phase.activations
    if phase.activations in ("f16", "bf16") and phase.compute == "f32":
        base = f"a16-{phase.activations}"
    if base == "a16-f16" and phase.attention_sums == "f16":  # beside all other roundings it does not show
        base += "+sum16"
    if base == "a16-f16" and phase.product_results == "f16":
        base += "+out16"
    if base == "f32" and kv_cache == "f16":  # beside all other roundings it does not show
        base += "+kv16"
    half = f"+{phase.compute}" if base.startswith("a8-") and phase.compute != "f32" else ""
    return base + half + ("+kv8" if kv_cache in ("u8", "i8", "q8_0") else "")


def explained(rounded: Mapping[Activations, Float32], outputs: Float32, weights: Float32) -> Activations | None:
    """Which rounding explains the `outputs` [rows, out] of a product with `weights` [out, in].

    `rounded` are its inputs [rows, in] by what they would be rounded to. None unless the best residual is below half of
    the second best.
    """
    residual = {name: float(np.linalg.norm(outputs - inputs @ weights.T)) for name, inputs in rounded.items()}
    best, second = sorted(residual, key=lambda name: residual[name])[:2]
    return best if residual[best] < CLEAR * residual[second] else None


def rounded_to_int8(inputs: Float32) -> dict[Activations, Float32]:
    """`inputs` [rows, in] as products see them that round to symmetric int8: by group of 32, by row, all together.

    Of one row the last two are one, and the first of them stands for both.
    """
    axes: dict[Activations, int | None] = {"a8-g32": -1, "a8-token": -1, "a8-tensor": None}
    if len(inputs) == 1:
        del axes["a8-tensor"]
    found: dict[Activations, Float32] = {}
    for name, axis in axes.items():
        shaped = inputs.reshape(len(inputs), -1, INT8_GROUP) if name == "a8-g32" else inputs
        scale = np.abs(shaped).max(axis=axis, keepdims=True) / np.float32(127)
        nearest = np.rint(shaped / np.where(scale > 0, scale, np.float32(1))) * scale
        found[name] = nearest.reshape(inputs.shape)
    return found


def rounded_to_half(inputs: Float32, kind: Compute) -> Float32:
    """`inputs` as they are left by storing them as `kind`: ties go to even."""
    if kind == "f16":
        return inputs.astype(np.float16).astype(np.float32)
    if kind == "bf16":
        bits = np.ascontiguousarray(inputs).view(np.uint32)
        nearest: Float32 = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)
        return nearest
    return inputs
