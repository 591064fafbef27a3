"""Precision classes: what a runtime of each class rounds, so that one pass can predict the error it must make.

Class ids are those of bench.facts.precision_class: `f32`, `f16`, `bf16` (every activation is held in that type),
`a8-g32`, `a8-token`, `a8-tensor` (inputs of linear layers in symmetric int8, one scale per group of 32, per token or
per step; everything else in float32, or with `+f16` and `+bf16` held in that type before), each alone or with `+kv8`
(keys and values cached in asymmetric uint8, one scale per token and head).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import get_args

import numpy as np

from bench.api import GROUP
from bench.facts import Activations, Compute, PhaseFacts, precision_class
from bench.types import Float32

KV8 = "+kv8"
CLASSES: tuple[str, ...] = tuple(
    dict.fromkeys(
        precision_class(PhaseFacts(activations=activations, compute=compute), kv_cache)
        for kv_cache, compute, activations in product(("f32", "u8"), get_args(Compute), get_args(Activations))
        if compute == "f32" or activations != "a8-tensor"
    )
)
"""Every class that is predicted, the plain ones first. Nothing known computes `a8-tensor` in half precision."""


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
            return values.astype(np.float16).astype(np.float32)
        return round_bf16(values) if "bf16" in self._parts else values

    def linear_input(self, values: Float32) -> Float32:
        """[positions, columns] as the matrix product of a linear layer sees it."""
        if "a8-g32" in self._parts:
            grouped = values.reshape(*values.shape[:-1], -1, GROUP)
            return round_a8(grouped, axis=-1).reshape(values.shape)
        if "a8-token" in self._parts:
            return round_a8(values, axis=-1)
        return round_a8(values, axis=None) if "a8-tensor" in self._parts else values

    def cached(self, values: Float32) -> Float32:
        """[positions, heads, head_dim] of keys or values as attention reads them back."""
        return round_kv8(values) if self.id.endswith(KV8) else values


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
