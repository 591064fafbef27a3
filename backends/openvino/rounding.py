"""What a matrix product rounds its inputs to, found by asking it.

No property of a compiled model says which of its products quantize their inputs: it depends on the kernels that the
processor has, on the weights' type, and on the number of rows. So one product of the model itself is compiled alone,
with the same properties on the same device, is given random rows, and its answer is held against each rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops

from backends.openvino.graph import PRODUCT
from bench.api import GROUP, Codes
from bench.facts import Activations, Compute
from bench.types import Float32

COLUMNS = 512
"""Outputs that are compared."""
CLEAR = 0.5
"""The best rounding's residual must be at most this share of the second best's."""


INT8: tuple[Activations, ...] = ("a8-g32", "a8-token", "a8-tensor")


def product(model: ov.Model, name: str) -> ov.Model:
    """The product with the weight `name` of `model`, decompressed there as it is here, and nothing else."""
    place = next(node for node in model.get_ordered_ops() if node.get_friendly_name() == name + PRODUCT)
    weight = place.input_value(1)
    rows = ops.parameter([-1, weight.get_partial_shape()[1].get_length()], ov.Type.f32)
    return ov.Model([ops.matmul(rows, weight, False, True)], [rows], "product")


def found(compiled: Any, codes: Codes, rows: int, compute: Compute) -> Activations | None:
    """The rounding that a compiled product does to an input of `rows` rows; None where none explains it clearly.

    `codes` are its weight's, `compute` the type of its arithmetic, to which the input is rounded before anything else.
    """
    inputs = np.random.default_rng(rows).standard_normal((rows, codes.shape[1]), dtype=np.float32)
    answer = np.array(compiled([inputs])[0])[:, :COLUMNS]
    weights = codes.values(0, min(COLUMNS, codes.shape[0])).T
    stored = _to(inputs, compute)
    rounded: dict[Activations, Float32] = {compute: stored}
    for name in INT8 if rows > 1 else INT8[:-1]:  # of one row, a8-tensor is a8-token
        rounded[name] = _to_int8(stored, name)
    residual = {name: float(np.linalg.norm(answer - x @ weights)) for name, x in rounded.items()}
    best, second = sorted(residual, key=lambda name: residual[name])[:2]
    return best if residual[best] <= CLEAR * residual[second] else None


def _to(values: Float32, kind: Compute) -> Float32:
    if kind == "f16":
        return values.astype(np.float16).astype(np.float32)
    if kind == "bf16":
        bits = values.view(np.uint32)
        nearest: Float32 = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)
        return nearest
    return values


def _to_int8(values: Float32, name: Activations) -> Float32:
    """Symmetric int8, one scale a group, a row, or for all."""
    shaped = values.reshape(len(values), -1, GROUP) if name == "a8-g32" else values
    axis = None if name == "a8-tensor" else -1
    scale = np.abs(shaped).max(axis=axis, keepdims=True) / np.float32(127)
    rounded: Float32 = np.rint(shaped / scale) * scale
    return rounded.reshape(values.shape)
