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
from bench.api import Codes
from bench.facts import Activations, Compute, explained, rounded_to_half, rounded_to_int8
from bench.types import Float32

COLUMNS = 512
"""Outputs that are compared."""


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
    weights = codes.values(0, min(COLUMNS, codes.shape[0]))
    stored = rounded_to_half(inputs, compute)
    rounded: dict[Activations, Float32] = {compute: stored, **rounded_to_int8(stored)}
    return explained(rounded, answer, weights)
