"""What a product rounds its inputs to, found by comparing its own answer with each rounding's."""

from __future__ import annotations

from backends.llamacpp.graph import Product
from bench.api import Codes
from bench.facts import Activations, explained, rounded_to_half, rounded_to_int8
from bench.types import Float32

COLUMNS = 512
"""Outputs that are compared."""


def found(product: Product, weight: Codes) -> Activations | None:
    """The rounding that explains a product with `weight`; None where none does so clearly."""
    inputs = product.inputs
    rounded: dict[Activations, Float32] = {
        "f32": inputs,
        "f16": rounded_to_half(inputs, "f16"),
        "bf16": rounded_to_half(inputs, "bf16"),
        **rounded_to_int8(inputs),
    }
    return explained(rounded, product.outputs[:, :COLUMNS], weight.values(0, min(COLUMNS, weight.shape[0])))
