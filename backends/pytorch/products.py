"""Matrix products over codes that stay codes, in torch's plain operators; which are taken where: recipes.py.

Each is called with activations [tokens, in] and returns [tokens, out] in the same type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import GROUP, CodeScheme
from bench.facts import Activations

TINY = torch.finfo(torch.float32).tiny
AT_ONCE = {"cpu": 2 << 20}
"""Most numbers of a weight that are widened for a product, by device: a processor's caches hold so many."""
AT_MOST = 64 << 20
"""On any other device: fewer and larger kernels, and yet little memory beside the model."""


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

    def stored(self) -> tuple[Tensor, Tensor | None]:
        """Numbers and scales in the order of the file."""
        return self.numbers, self.scales

    def values(self, dtype: torch.dtype, rows: Tensor | slice = slice(None)) -> Tensor:
        """[rows, in] as `dtype`: code × scale, computed in float32."""
        if self.scales is None:
            return self.numbers[rows].to(dtype)
        codes, scales = self.numbers[rows], self.scales[rows].float()
        if self.scheme == "int4":
            codes = unpacked(codes).to(torch.int8) - 8
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
        return plus(F.linear(x, self.held.numbers), self._bias)


class DenseBf16(Dense):
    """bf16 on a processor: one row through ATen's own kernel, which reads 44 GB/s where oneDNN's reads 31."""

    name: ClassVar[str] = "linear, of one row without oneDNN"

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[0] > 1 or torch.compiler.is_compiling():  # a switch cannot be compiled
            return super().__call__(x)
        before = torch._C._get_mkldnn_enabled()
        torch._C._set_mkldnn_enabled(False)
        try:
            return super().__call__(x)
        finally:
            torch._C._set_mkldnn_enabled(before)


class DenseF16(Dense):
    """float16 on a processor: few rows as they are; for many, few processors have instructions, so in float32."""

    name: ClassVar[str] = "linear, of many rows in float32"
    MOST_ROWS: ClassVar[int] = 16

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[0] <= self.MOST_ROWS:
            return super().__call__(x)
        return plus(in_parts(x.float(), self.held), self._bias).to(x.dtype)


class Dequantized:
    """Codes that become numbers of the activations' type in each call, a bounded part of a large weight at once."""

    name: ClassVar[str] = "linear over codes × scales"
    activations: ClassVar[Activations | None] = None

    def __init__(self, held: Held, bias: Tensor | None, dtype: torch.dtype):
        self.held, self._bias = held, bias

    def __call__(self, x: Tensor) -> Tensor:
        return plus(in_parts(x, self.held), self._bias)


class RoundedDequantized(Dequantized):
    """The same with each token's activations rounded to int8, as the products beside it round them."""

    name: ClassVar[str] = "linear over int8 and codes × scales"
    activations: ClassVar[Activations | None] = "a8-token"

    def __call__(self, x: Tensor) -> Tensor:
        codes, scale = rounded(x)
        return plus(in_parts(codes, self.held) * scale, self._bias)


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
        out = self._sums(codes.to(torch.int8)) * scale
        out *= self._scales
        return out if self._bias is None else out.add_(self._bias)

    def _sums(self, codes: Tensor) -> Tensor:
        return torch._int_mm(codes, self._transposed)


class SignedInt8(RowInt8):
    """The same where int8 products saturate: what is negative and what is positive are multiplied as rows apart.

    Without VNNI pairs of products are added in 16 bits, of inputs moved to 0..255. Inputs from −127 to 0 become 1..128,
    and 2 × 128 × 127 fits.
    """

    name: ClassVar[str] = "_int_mm of positive and negative inputs"

    def _sums(self, codes: Tensor) -> Tensor:
        negative, positive = super()._sums(torch.cat([codes.clamp(max=0), -codes.clamp(min=0)])).chunk(2)
        return negative - positive


class RowScaled:
    """int8 codes with one scale a row, as numbers of the activations' type, which they are exactly; scaled afterwards.

    The codes are widened in each call, which costs little for many tokens at once, and nothing where it is compiled
    into the product.
    """

    name: ClassVar[str] = "linear over codes, × scales"
    activations: ClassVar[Activations | None] = None

    def __init__(self, held: Held, bias: Tensor | None, dtype: torch.dtype):
        assert held.scales is not None
        self.held, self._bias, self._scales = held, bias, held.scales.float().flatten()
        self._codes = Held(held.scheme, held.numbers)

    def __call__(self, x: Tensor) -> Tensor:
        out = _fused(x, self._codes) if _compiling(x) else in_parts(x, self._codes)
        return plus(out * self._scales, self._bias).to(x.dtype)


class WidenedDequantized(Dequantized):
    """Codes × scales in float32, whatever the activations are: half precision would cut the products' bits."""

    name: ClassVar[str] = "linear in float32 over codes × scales"

    def __call__(self, x: Tensor) -> Tensor:
        out = _fused(x, self.held) if _compiling(x) else in_parts(x.float(), self.held)
        return plus(out, self._bias).to(x.dtype)


def unpacked(stored: Tensor) -> Tensor:
    """Bytes of Q4_0 [..., in / 2] as codes from 0 to 15 [..., in]."""
    halves = stored.unflatten(-1, (-1, GROUP // 2))
    return torch.cat([halves & 15, halves >> 4], dim=-1).flatten(-2)


def in_parts(x: Tensor, held: Held) -> Tensor:
    """[tokens, in] times the transposed weight as numbers of the type of `x`, some of its rows at once."""
    rows, at_once = len(held.numbers), max(1, AT_ONCE.get(x.device.type, AT_MOST) // x.shape[-1])
    out = x.new_empty(len(x), rows)  # before the parts, between which it would leave holes that none fits in
    for first in range(0, rows, at_once):
        part = slice(first, first + at_once)
        out[:, part] = F.linear(x, held.values(x.dtype, part))
    return out


def rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each row as whole numbers from −127 to 127, and the scale [rows, 1] that they are to be multiplied by."""
    scale = x.abs().amax(dim=-1, keepdim=True).div_(127).clamp_min_(TINY)
    return (x / scale).round_(), scale


def plus(out: Tensor, bias: Tensor | None) -> Tensor:
    """A float32 bias is added in float32, whatever type the product is in."""
    return out if bias is None else (out.float() + bias).to(out.dtype)


def _compiling(x: Tensor) -> bool:
    """Whether this is one token's product inside of what is being compiled."""
    return x.shape[0] == 1 and bool(torch.compiler.is_compiling())


def _fused(x: Tensor, held: Held) -> Tensor:
    """[1, out] in float32: written as a sum, it becomes one kernel that reads the codes and widens them on the way."""
    return (held.values(torch.float32) * x.float()).sum(dim=-1)[None]
