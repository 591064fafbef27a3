"""Precision classes: what a runtime of each class rounds, so that one pass can predict the error it must make.

Class ids are those of bench.facts.precision_class: `f32`, `f16`, `bf16` (every activation is held in that type),
`a8-g32`, `a8-token`, `a8-tensor` (inputs of linear layers in symmetric int8, one scale per group of 32, per token or
per step; everything else in float32, or with `+f16` and `+bf16` held in that type before), `a16-f16`, `a16-bf16` (only
the inputs of products are rounded to that type, with f16 the cached keys and values too: they are inputs of
attention's), each alone or with `+kv8` (keys and values cached in asymmetric uint8, one scale per token and head).
`a16-f16+sum16` is `a16-f16` where attention also adds up in float16, one position after the other; `a16-f16+out16` is
`a16-f16` where the products' results are rounded to float16 too. `f32+kv16` rounds cached keys and values alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import get_args

import numpy as np

from bench.api import GROUP
from bench.facts import Activations, Compute, PhaseFacts, precision_class
from bench.types import Float32

KV8, KV16 = "+kv8", "+kv16"
SUM16, OUT16 = "+sum16", "+out16"
CLASSES: tuple[str, ...] = (
    *dict.fromkeys(
        precision_class(PhaseFacts(activations=activations, compute=compute), kv_cache)
        for kv_cache, compute, activations in product(("f32", "u8"), get_args(Compute), get_args(Activations))
        if activations != "a8-g256" and (compute == "f32" or activations != "a8-tensor")
    ),
    "a16-f16" + SUM16,
    "a16-f16" + OUT16,
    "f32" + KV16,
)
"""Every class that is predicted, the plain ones first. Nothing known computes `a8-tensor` in half precision, and
`a8-g256` belongs to weights that only others' files have."""


@dataclass(frozen=True, slots=True)
class PrecisionClass:
    """One class by its id; ValueError for an unknown one."""

    id: str

    def __post_init__(self) -> None:
        if self.id not in CLASSES:
            raise ValueError(f"unknown precision class {self.id!r}; known: {', '.join(CLASSES)}")

    @property
    def _parts(self) -> list[str]:
        return self.id.split("+")

    def activation(self, values: Float32) -> Float32:
        """What is left of an activation once it is stored: the result of every operation passes through here."""
        if "f16" in self._parts:
            return _round_f16(values)
        return round_bf16(values) if "bf16" in self._parts else values

    def linear_input(self, values: Float32) -> Float32:
        """[positions, columns] as the matrix product of a linear layer sees it."""
        if "a8-g32" in self._parts:
            grouped = values.reshape(*values.shape[:-1], -1, GROUP)
            return round_a8(grouped, axis=-1).reshape(values.shape)
        if "a8-token" in self._parts:
            return round_a8(values, axis=-1)
        if "a16-bf16" in self._parts:
            return round_bf16(values)
        if "a16-f16" in self._parts:
            return _round_f16(values)
        return round_a8(values, axis=None) if "a8-tensor" in self._parts else values

    def attention_input(self, values: Float32) -> Float32:
        """Queries and weights as attention's products see them."""
        return _round_f16(values) if "a16-f16" in self._parts else values

    def cached(self, values: Float32) -> Float32:
        """[positions, heads, head_dim] of keys or values as attention reads them back."""
        if self.id.endswith(KV8):
            return round_kv8(values)
        return _round_f16(values) if "a16-f16" in self._parts or self.id.endswith(KV16) else values

    def product_result(self, values: Float32) -> Float32:
        """What a product gives, attention's too."""
        return _round_f16(values) if self.id.endswith(OUT16) else values

    @property
    def sums_f16(self) -> bool:
        """Attention's sums are float16."""
        return self.id.endswith(SUM16)


def mixed_f16(scores: Float32, value: Float32) -> Float32:
    """[…, queries, head_dim]: softmax of `scores` [queries, keys] times `value` [keys, head_dim], summed in float16.

    One key after the other with a running maximum, as attention kernels do that never hold all scores (Milakov and
    Gimelshein 2018); each addition is rounded. The first key is seen by every query.
    """
    top = scores[..., :1]
    total = np.ones_like(top)
    mixed = np.broadcast_to(value[..., :1, :], (*scores.shape[:-1], value.shape[-1])).copy()
    for key in range(1, scores.shape[-1]):
        score = scores[..., key : key + 1]
        higher = np.maximum(top, score)
        keep, weight = np.exp(top - higher), np.exp(score - higher)
        mixed = _round_f16(_round_f16(mixed * keep) + value[..., key : key + 1, :] * weight)
        total, top = total * keep + weight, higher
    out: Float32 = mixed / total
    return out


def _round_f16(values: Float32) -> Float32:
    return values.astype(np.float16).astype(np.float32)


def round_bf16(values: Float32) -> Float32:
    """To the nearest bf16, ties to even; `values` finite."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)


def round_a8(values: Float32, axis: int | None) -> Float32:
    """Symmetric int8 with scale max|x| / 127 over `axis` (None: over everything); zeros stay zeros."""
    scale = np.abs(values).max(axis=axis, keepdims=True) / np.float32(127)
    rounded: Float32 = np.rint(values / np.where(scale > 0, scale, np.float32(1))) * scale
    return rounded


def round_kv8(values: Float32) -> Float32:
    """Asymmetric uint8 between the smallest and the largest value of the last axis."""
    low = values.min(axis=-1, keepdims=True)
    scale = (values.max(axis=-1, keepdims=True) - low) / np.float32(255)
    rounded: Float32 = np.rint((values - low) / np.where(scale > 0, scale, np.float32(1))) * scale + low
    return rounded
