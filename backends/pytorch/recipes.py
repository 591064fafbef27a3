"""Which products a model is computed with: by kind of device, by scheme, and by how each tensor is coded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from backends.pytorch.packed import PackedInt4, PackedInt8, packable
from backends.pytorch.products import (
    Dense,
    DenseBf16,
    DenseF16,
    Dequantized,
    Held,
    Product,
    RoundedDequantized,
    RowInt8,
    RowScaled,
    SignedInt8,
    WidenedDequantized,
)
from bench.api import GROUP

GROUPED = "int8 grouped"
"""int8 codes with a scale for each group of 32, where all others have one a row."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The type between products, and the product for each coding.

    `in_place`: weights are read as they lie in the prepared file, step after step.
    """

    dtype: torch.dtype
    products: Mapping[str, type[Product]]
    in_place: bool = True

    def product(self, held: Held, bias: Tensor | None) -> Product:
        """What multiplies by `held`."""
        grouped = held.scheme == "int8" and held.scales is not None and held.scales.shape[1] > 1
        kind = self.products[GROUPED if grouped else held.scheme]
        if kind is PackedInt4 and not packable(held):
            kind = WidenedDequantized
        return kind(held, bias, self.dtype)


_PLAIN: Mapping[str, type[Product]] = {"f16": Dense, "bf16": Dense, "f32": Dense}
_CODES: Mapping[str, type[Product]] = {"int8": Dequantized, GROUPED: Dequantized, "int4": Dequantized}
EXACT = Recipe(torch.float32, {**_PLAIN, **_CODES}, in_place=False)

_ROUNDED: Mapping[str, type[Product]] = {**_PLAIN, "int8": RowInt8, GROUPED: RoundedDequantized}
_PACKED: Mapping[str, type[Product]] = {
    **_PLAIN,
    "int8": PackedInt8,
    GROUPED: WidenedDequantized,
    "int4": PackedInt4,
}
_HALVES: Mapping[str, type[Product]] = {
    **_PLAIN,
    "int8": RowScaled,
    GROUPED: WidenedDequantized,
    "int4": WidenedDequantized,
}
_PROCESSOR: Mapping[str, Recipe] = {
    "int8": Recipe(torch.float32, _ROUNDED),
    "int4": Recipe(torch.bfloat16, _PACKED, in_place=False),
    "fp16": Recipe(torch.float16, {**_PLAIN, "f16": DenseF16}),
    "bf16": Recipe(torch.bfloat16, {**_PLAIN, "bf16": DenseBf16}),
}
_OTHERS: Mapping[str, Recipe] = {
    "int8": Recipe(torch.bfloat16, _HALVES),
    "int4": Recipe(torch.bfloat16, _HALVES),
    "fp16": Recipe(torch.float16, _PLAIN),
    "bf16": Recipe(torch.bfloat16, _PLAIN),
}
"""What is fast, by scheme.

A processor rounds each token for its int8 products, and reads int4 in a kernel that computes on bf16. Other devices
multiply halves: the codes of int8 are exact in bf16, and their scales come after the product. A code of int4 times its
scale has up to 15 bits, which neither half holds.
"""


def native(scheme: str, *, on_processor: bool) -> Recipe:
    """What `scheme` is multiplied with here. A processor is asked whether its int8 products saturate."""
    if not on_processor:
        return _OTHERS[scheme]
    recipe = _PROCESSOR[scheme]
    if scheme == "int8" and _saturates():
        return replace(recipe, products={**recipe.products, "int8": SignedInt8})
    return recipe


def _saturates() -> bool:
    """Whether sums of the largest int8 products come out wrong, of one row or many: these have kernels of their own."""
    ones = torch.ones(GROUP, 2 * GROUP, dtype=torch.int8)
    sums = (torch._int_mm(127 * ones[:rows], 127 * ones.t()) for rows in (1, GROUP))
    return any(bool((found != 127 * 127 * 2 * GROUP).any()) for found in sums)
