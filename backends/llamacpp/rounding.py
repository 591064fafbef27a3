"""What a product rounds its inputs to, found by comparing its own answer with each rounding's."""

from __future__ import annotations

import numpy as np

from backends.llamacpp.graph import Product
from bench.api import GROUP, Codes
from bench.facts import Activations
from bench.types import Float32

COLUMNS = 512
"""Outputs that are compared."""
CLEAR = 0.5
"""The best rounding's residual must be below this share of the second best's."""
INT8: tuple[Activations, ...] = ("a8-g32", "a8-token", "a8-tensor")


def found(product: Product, weight: Codes) -> Activations | None:
    """The rounding that explains a product with `weight`; None where none does so clearly."""
    inputs, outputs = product.inputs, product.outputs[:, :COLUMNS]
    matrix = weight.values(0, min(COLUMNS, weight.shape[0])).T
    rounded: dict[Activations, Float32] = {"f32": inputs, "f16": _to_f16(inputs), "bf16": _to_bf16(inputs)}
    for name in INT8 if len(inputs) > 1 else INT8[:-1]:  # of one row, a8-tensor is a8-token
        rounded[name] = _to_int8(inputs, name)
    residual = {name: float(np.linalg.norm(outputs - values @ matrix)) for name, values in rounded.items()}
    best, second = sorted(residual, key=lambda name: residual[name])[:2]
    return best if residual[best] < CLEAR * residual[second] else None


def _to_f16(values: Float32) -> Float32:
    return values.astype(np.float16).astype(np.float32)


def _to_bf16(values: Float32) -> Float32:
    bits = np.ascontiguousarray(values).view(np.uint32)
    nearest: Float32 = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)
    return nearest


def _to_int8(values: Float32, name: Activations) -> Float32:
    """Symmetric int8, one scale a group, a row, or for all."""
    shaped = values.reshape(len(values), -1, GROUP) if name == "a8-g32" else values
    axis = None if name == "a8-tensor" else -1
    scale = np.abs(shaped).max(axis=axis, keepdims=True) / np.float32(127)
    rounded: Float32 = np.rint(shaped / np.where(scale > 0, scale, np.float32(1))) * scale
    return rounded.reshape(values.shape)
