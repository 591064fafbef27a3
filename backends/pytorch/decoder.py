"""The decoder: llama, qwen2 and qwen3 over a static KV cache, in plain torch. Read it from the top.

Every product of a layer is something that is called with [tokens, in] and returns [tokens, out] (products.py); what it
holds and how it rounds is its own affair. All else is held in one type, `dtype`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.types import Arch

Product = Callable[[Tensor], Tensor]
Where: TypeAlias = "slice | Tensor"
"""Positions that a step fills: a slice; indices where the step is compiled once for all positions."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Weights of one block. Q, K and V are one product, gate and up are another; norms of heads only in qwen3."""

    attn_norm: Tensor
    qkv: Product
    q_norm: Tensor | None
    k_norm: Tensor | None
    attn_output: Product
    ffn_norm: Tensor
    gate_up: Product
    ffn_down: Product


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A whole model; `table` looks rows of the embedding up: ids [rows, n] to [rows, n, hidden]."""

    table: Product
    layers: Sequence[Layer]
    output_norm: Tensor
    head: Product


class Decoder:
    """The model and its cache of `rows` × `capacity` positions."""

    def __init__(self, arch: Arch, weights: Weights, inv_freq: Tensor, rows: int, capacity: int, dtype: torch.dtype):
        self.arch, self.weights = arch, weights
        device = weights.output_norm.device
        self._eps, self._groups = arch.norm_eps, arch.heads // arch.kv_heads
        angles = torch.outer(torch.arange(capacity, dtype=torch.float64), inv_freq)
        cos, sin = angles.cos(), angles.sin()  # the first half of a head is rotated against the second
        self._cos = torch.cat([cos, cos], dim=-1).to(device, dtype)
        self._sin = torch.cat([-sin, sin], dim=-1).to(device, dtype)
        shape = rows, arch.kv_heads, capacity, arch.head_dim
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in weights.layers]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in weights.layers]
        self._positions = torch.arange(capacity, device=device)

    def __call__(self, ids: Tensor, where: Where, stop: int, every: bool = False) -> Tensor:
        """Logits [rows, 1, vocab] after `ids` [rows, n] at the positions `where`; of `every` position if asked.

        Attention reads the cache as far as `stop`, which nothing filled may lie behind.
        """
        turn = self._cos[where], self._sin[where]
        alone = ids.shape[1] == 1 and isinstance(where, slice)  # then all that is read may be looked at
        mask = None if alone else self._mask(where, stop)
        x = self.weights.table(ids)
        for index, layer in enumerate(self.weights.layers):
            heads = self._attention(index, layer, self._norm(x, layer.attn_norm), turn, mask, where, stop)
            x = x + _apply(layer.attn_output, heads)
            gate, up = _apply(layer.gate_up, self._norm(x, layer.ffn_norm)).chunk(2, dim=-1)
            x = x + _apply(layer.ffn_down, F.silu(gate) * up)
        x = self._norm(x if every else x[:, -1:], self.weights.output_norm)
        return _apply(self.weights.head, x)

    def _attention(
        self,
        index: int,
        layer: Layer,
        x: Tensor,
        turn: tuple[Tensor, Tensor],
        mask: Tensor | None,
        where: Where,
        stop: int,
    ) -> Tensor:
        """Mixed values [rows, n, heads × head_dim] of one layer, after adding its keys and values to the cache."""
        arch, (rows, count, _) = self.arch, x.shape
        mixed = _apply(layer.qkv, x).view(rows, count, arch.heads + 2 * arch.kv_heads, arch.head_dim).transpose(1, 2)
        turned, v = mixed.split([arch.heads + arch.kv_heads, arch.kv_heads], dim=1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = turned.split([arch.heads, arch.kv_heads], dim=1)
            turned = torch.cat([self._norm(q, layer.q_norm), self._norm(k, layer.k_norm)], dim=1)
        q, k = _turned(turned, turn).split([arch.heads, arch.kv_heads], dim=1)
        keys, values = self.keys[index][:rows, :, :stop], self.values[index][:rows, :, :stop]
        keys[:, :, where] = k
        values[:, :, where] = v
        # The heads that share keys and values are laid out as further queries: nothing is repeated in memory.
        q = q.reshape(rows, arch.kv_heads, self._groups * count, arch.head_dim)
        out = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return out.reshape(rows, arch.heads, count, arch.head_dim).transpose(1, 2).reshape(rows, count, -1)

    def _mask(self, where: Where, stop: int) -> Tensor:
        """[groups × n, stop]: 0 where a query may look, −inf at what comes after it."""
        hidden = self._positions[None, :stop] > self._positions[where, None]
        mask = torch.zeros(hidden.shape, dtype=self._cos.dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
        return mask.repeat(self._groups, 1)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """In half precision as transformers has it: rounded before the weights, which are float32, multiply."""
        if x.dtype == torch.float32:
            return F.rms_norm(x, weight.shape, weight, self._eps)
        return (F.rms_norm(x, weight.shape, None, self._eps) * weight).to(x.dtype)


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """[rows, heads, n, head_dim] rotated by cos and signed sin [n, head_dim]."""
    return x * turn[0] + x.roll(x.shape[-1] // 2, dims=-1) * turn[1]


def _apply(product: Product, x: Tensor) -> Tensor:
    """[rows, n, in] through a product of [tokens, in]."""
    return product(x.flatten(0, 1)).view(*x.shape[:-1], -1)
