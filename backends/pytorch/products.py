"""Matrix products over codes that stay codes, and which of them a device takes for a scheme.

Each is called with activations [tokens, in] and returns [tokens, out] in the same type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import GROUP, CodeScheme
from bench.facts import Activations

TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """One tensor where it computes: int8 codes [rows, in], int4 codes as bytes [rows, in / 2] of Q4_0, or numbers.

    `scales` are float16 [rows, 1] or [rows, in / 32], None for plain numbers.
    """

    scheme: CodeScheme
    numbers: Tensor
    scales: Tensor | None = None

    @property
    def size_bytes(self) -> int:
        scales = self.scales.nbytes if self.scales is not None else 0
        return int(self.numbers.nbytes) + int(scales)

    def values(self, dtype: torch.dtype, rows: Tensor | slice = slice(None)) -> Tensor:
        """[rows, in] as `dtype`: code × scale, computed in float32."""
        if self.scales is None:
            return self.numbers[rows].to(dtype)
        codes, scales = self.numbers[rows], self.scales[rows].float()
        if self.scheme == "int4":
            halves = codes.unflatten(-1, (-1, GROUP // 2))
            codes = torch.cat([halves & 15, halves >> 4], dim=-1).flatten(-2).to(torch.int8) - 8
        blocks = codes.unflatten(-1, (scales.shape[-1], -1))
        return (blocks.float() * scales[..., None]).flatten(-2).to(dtype)


class Product(Protocol):
    """[tokens, in] times the transposed weight, plus a bias where there is one."""

    name: ClassVar[str]
    """The operator of torch that multiplies."""
    activations: ClassVar[Activations | None]
    """What inputs are rounded to; None: nothing beside the type that they come in."""
    held: Held

    def __init__(self, held: Held, bias: Tensor | None, dtype: torch.dtype): ...

    def __call__(self, x: Tensor) -> Tensor: ...


class Table:
    """Rows of the embedding by their ids."""

    def __init__(self, held: Held, dtype: torch.dtype):
        self.held, self._dtype = held, dtype

    def __call__(self, ids: Tensor) -> Tensor:
        return self.held.values(self._dtype, ids)


class Dense:
    """Plain numbers in the type that they are multiplied in."""

    name: ClassVar[str] = "linear"
    activations: ClassVar[Activations | None] = None

    def __init__(self, held: Held, bias: Tensor | None, dtype: torch.dtype):
        self.held = Held(held.scheme, held.numbers.to(dtype))
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return _plus(F.linear(x, self.held.numbers), self._bias)


class Dequantized:
    """Codes that become numbers of the activations' type in each call."""

    name: ClassVar[str] = "linear over codes × scales"
    activations: ClassVar[Activations | None] = None

    def __init__(self, held: Held, bias: Tensor | None, dtype: torch.dtype):
        self.held, self._bias = held, bias

    def __call__(self, x: Tensor) -> Tensor:
        return _plus(F.linear(x, self.held.values(x.dtype)), self._bias)


class RoundedDequantized(Dequantized):
    """The same with each token's activations rounded to int8, as the products beside it round them."""

    name = "linear over int8 and codes × scales"
    activations = "a8-token"

    def __call__(self, x: Tensor) -> Tensor:
        codes, scale = rounded(x)
        return _plus(F.linear(codes, self.held.values(x.dtype)) * scale, self._bias)


class RowInt8:
    """int8 codes with one scale a row; each token's activations are rounded to int8, and the sums are int32."""

    name: ClassVar[str] = "_int_mm"
    activations: ClassVar[Activations | None] = "a8-token"

    def __init__(self, held: Held, bias: Tensor | None, dtype: torch.dtype):
        assert held.scales is not None
        self.held, self._bias = held, bias
        self._transposed, self._scales = held.numbers.t(), held.scales.float().flatten()

    def __call__(self, x: Tensor) -> Tensor:
        codes, scale = rounded(x)
        out = torch._int_mm(codes.to(torch.int8), self._transposed) * scale
        out *= self._scales
        return out if self._bias is None else out.add_(self._bias)


def rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each row as whole numbers from −127 to 127, and the scale [rows, 1] that they are to be multiplied by."""
    scale = x.abs().amax(dim=-1, keepdim=True).div_(127).clamp_min_(TINY)
    return (x / scale).round_(), scale


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a model is computed with: the type between products, and a kind of product for each coding."""

    dtype: torch.dtype
    products: Mapping[CodeScheme, type[Product]]

    def product(self, held: Held, bias: Tensor | None) -> Product:
        """Codes with a scale for each group are multiplied as int4's are, whatever their width."""
        grouped = held.scales is not None and held.scales.shape[1] > 1
        return self.products["int4" if grouped else held.scheme](held, bias, self.dtype)


EXACT = Recipe(torch.float32, {"int8": Dequantized, "int4": Dequantized, "f16": Dense, "bf16": Dense, "f32": Dense})


def native(scheme: str) -> Recipe:
    """What is fast on a processor: int8 products where there are codes, else products of the scheme's own type.

    float16 is multiplied as float32: the product of a code and a scale has 11 significant bits, which bf16 would cut,
    and few processors multiply float16.
    """
    products = {**EXACT.products, "int8": RowInt8, "int4": RoundedDequantized}
    return Recipe(torch.bfloat16 if scheme == "bf16" else torch.float32, products)


def _plus(out: Tensor, bias: Tensor | None) -> Tensor:
    """A float32 bias is added in float32, whatever type the product is in."""
    return out if bias is None else (out.float() + bias).to(out.dtype)
