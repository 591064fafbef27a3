"""int4 and int8 weights through ATen's own kernels for a processor, which read codes and compute on bf16 activations.

Either is exact about the weights: the kernel of int4 takes scales in bf16, so the float16 scales go in as two bf16 that
add up to them; the kernel of int8 gets no scales, they are multiplied afterwards.
"""

from __future__ import annotations

from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from backends.pytorch.products import Held, RowScaled, plus, unpacked
from bench.api import GROUP
from bench.facts import Activations

BLOCK_ROWS = 64
"""Rows that the packed layout keeps together, or a multiple of them."""
LEAST_ROWS = 16
"""The kernel takes multiples of this."""
DIGIT_BITS = 4
AT_ONCE_BYTES = 16 << 20
"""Of codes in memory as they are packed: they are eight times as large meanwhile."""


class PackedHeld(Held):
    """int4 codes in the kernel's order, [rows, in / 2] bytes, and its scales: [2, in / 32, rows, 2], each float16 as
    two bf16 that add up to it, and each of these beside what is added to the product, which is nothing.
    """

    def stored(self) -> tuple[Tensor, Tensor | None]:
        """The bytes of Q4_0 again, each half byte back where packing took it from, and the sums of the scales."""
        assert self.scales is not None
        high, low = self.scales[..., 0].float()
        return self._bytes(), (high + low).half().t()

    def _bytes(self) -> Tensor:
        rows, half = self.numbers.shape
        codes = torch.empty(rows, 2 * half, dtype=torch.uint8)
        for start in range(0, rows, BLOCK_ROWS):
            block = self.numbers[start : start + BLOCK_ROWS]
            source = _sources(len(block), 2 * half)
            codes[start : start + BLOCK_ROWS].view(-1)[source] = _halves(block)
        groups = codes.unflatten(-1, (-1, 2, GROUP // 2))
        return (groups[..., 0, :] | groups[..., 1, :] << DIGIT_BITS).flatten(-2)


class PackedInt4:
    """int4 codes with a scale for each group of 32."""

    name: ClassVar[str] = "_weight_int4pack_mm_for_cpu, by both halves of the scales"
    activations: ClassVar[Activations | None] = None

    def __init__(self, held: Held, bias: Tensor | None, dtype: torch.dtype):
        assert held.scales is not None
        at_once = max(1, AT_ONCE_BYTES // held.numbers.shape[1] // BLOCK_ROWS) * BLOCK_ROWS
        packed = torch.cat([_pack(unpacked(block).to(torch.int32)) for block in held.numbers.split(at_once)])
        self._bias, scales = bias, held.scales.float()
        high = scales.bfloat16()
        self._scales = torch.stack([_with_zeros(part) for part in (high, (scales - high.float()).bfloat16())])
        self.held: Held = PackedHeld(held.scheme, packed, self._scales)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        high, low = (
            torch.ops.aten._weight_int4pack_mm_for_cpu(x, self.held.numbers, GROUP, each).float()
            for each in self._scales
        )
        return plus(high + low, self._bias).to(x.dtype)


class PackedInt8(RowScaled):
    """int8 codes with one scale a row."""

    name: ClassVar[str] = "_weight_int8pack_mm, × scales"

    def __init__(self, held: Held, bias: Tensor | None, dtype: torch.dtype):
        super().__init__(held, bias, dtype)
        self._ones = torch.ones(len(self._scales), dtype=dtype)

    def __call__(self, x: Tensor) -> Tensor:
        out = torch._weight_int8pack_mm(x, self.held.numbers, self._ones) * self._scales
        return plus(out, self._bias).to(x.dtype)


def packable(held: Held) -> bool:
    """Whether the kernel of int4 takes a weight of this shape."""
    return int(held.numbers.shape[0]) % LEAST_ROWS == 0


def _pack(codes: Tensor) -> Tensor:
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    return packed


def _with_zeros(scales: Tensor) -> Tensor:
    """[in / 32, rows, 2]: each scale beside what is added to the product, which is nothing."""
    return torch.stack([scales, torch.zeros_like(scales)], dim=-1).transpose(0, 1)


def _halves(packed: Tensor) -> Tensor:
    """Half bytes in the order in which they lie."""
    return torch.stack([packed & 15, packed >> DIGIT_BITS], dim=-1).flatten()


@cache
def _sources(rows: int, columns: int) -> Tensor:
    """For each half byte of a packed block, which code it is: found by packing the digits of the codes' numbers.

    The layout is ATen's affair and differs with the instruction set that it was given.
    """
    numbers = torch.arange(rows * columns).view(rows, columns)
    found, shift = torch.zeros(rows * columns, dtype=torch.int64), 0
    while rows * columns >> shift:
        digit = (numbers >> shift & 15).to(torch.int32)
        found |= _halves(_pack(digit)).long() << shift
        shift += DIGIT_BITS
    return found
