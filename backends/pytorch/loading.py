"""From `weights.bin` to a decoder on its device, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backends.pytorch import weights
from backends.pytorch.decoder import Decoder, Layer, Weights
from backends.pytorch.products import Held, Product, Table
from backends.pytorch.recipes import Recipe
from backends.pytorch.weights import Numbers, Stored
from bench.api import Codes, CodeScheme
from bench.types import Arch, LoadGroup, Prepared

TABLE, HEAD = "token_embd.weight", "output.weight"


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A decoder, and what it holds by the names of `weights.bin`."""

    arch: Arch
    decoder: Decoder
    held: Mapping[str, Held]
    products: Mapping[str, Product]
    recipe: Recipe
    inv_freq: Tensor

    def fresh(self, rows: int, capacity: int) -> Decoder:
        """Another decoder over the same weights, with a cache of its own."""
        return Decoder(self.arch, self.decoder.weights, self.inv_freq, rows, capacity, self.recipe.dtype)

    @property
    def weight_bytes(self) -> int:
        return sum(held.size_bytes for held in self.held.values())

    @property
    def cache_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.decoder.keys, *self.decoder.values))

    def codes(self, name: str) -> Codes | None:
        """The artifact's tensor `name` as it is held here; None for a name that this model does not have."""
        place, rows = weights.rows_of(self.arch, name)
        if place not in self.held:
            return None
        held = self.held[place]
        numbers, scales = held.stored()
        return weights.codes(
            held.scheme,
            _numpy(numbers[rows], held.scheme),
            None if scales is None else scales[rows].cpu().numpy(),
        )


class Loader:
    """Reads a prepared folder. Codes are what lies in its file, in its own pages or, with `resident`, in ours."""

    def __init__(self, prepared: Prepared, device: torch.device, recipe: Recipe, *, resident: bool = False):
        self.arch = Arch.from_json(prepared.notes["arch"])
        self._inv_freq = torch.tensor(prepared.notes["inv_freq"], dtype=torch.float64)
        self._file = (weights.resident if resident else weights.mapped)(Path(prepared.path, weights.FILE))
        self._device, self._recipe, self._resident = device, recipe, resident
        self._stored = {name: Stored.from_json(told) for name, told in prepared.notes["stored"].items()}
        self._held: dict[str, Held] = {}
        self._products: dict[str, Product] = {}

    def load(self, group: LoadGroup) -> Loaded:
        layers = [self._layer(f"blk.{index}.") for index in range(self.arch.layers)]
        head = self._product(HEAD if HEAD in self._stored else TABLE)
        table = Table(self._plain(TABLE), self._recipe.dtype)  # where it is tied, as the head holds it: once
        model = Weights(table=table, layers=layers, output_norm=self._vector("output_norm.weight"), head=head)
        decoder = Decoder(self.arch, model, self._inv_freq, group.batch, group.kv_capacity, self._recipe.dtype)
        return Loaded(self.arch, decoder, self._held, self._products, self._recipe, self._inv_freq)

    def _layer(self, at: str) -> Layer:
        qk_norm = self.arch.qk_norm
        return Layer(
            attn_norm=self._vector(at + "attn_norm.weight"),
            qkv=self._product(at + "attn_qkv.weight", at + "attn_qkv.bias" if self.arch.qkv_bias else None),
            q_norm=self._vector(at + "attn_q_norm.weight") if qk_norm else None,
            k_norm=self._vector(at + "attn_k_norm.weight") if qk_norm else None,
            attn_output=self._product(at + "attn_output.weight"),
            ffn_norm=self._vector(at + "ffn_norm.weight"),
            gate_up=self._product(at + "ffn_gate_up.weight"),
            ffn_down=self._product(at + "ffn_down.weight"),
        )

    def _product(self, name: str, bias: str | None = None) -> Product:
        made = self._recipe.product(self._plain(name), self._vector(bias) if bias else None)
        if not self._resident:  # most products and all other devices hold numbers of their own now
            weights.let_go(self._file, self._stored[name])
        self._products[name], self._held[name] = made, made.held
        return made

    def _vector(self, name: str) -> Tensor:
        return self._plain(name).numbers

    def _plain(self, name: str) -> Held:
        """As it is stored, on the device; the same tensor each time."""
        if name not in self._held:
            stored = self._stored[name]
            scales = stored.scales(self._file) if stored.scales_shape else None
            self._held[name] = Held(
                stored.scheme,
                self._placed(stored.numbers(self._file), stored.scheme),
                None if scales is None else self._placed(scales, "f16"),
            )
        return self._held[name]

    def _placed(self, numbers: Numbers, scheme: CodeScheme) -> Tensor:
        tensor = torch.from_numpy(np.asarray(numbers))
        return (tensor.view(torch.bfloat16) if scheme == "bf16" else tensor).to(self._device)


def _numpy(tensor: Tensor, scheme: CodeScheme) -> Numbers:
    """A tensor as the artifact has its numbers: bf16 as its bits, a widened float16 as float16 again."""
    if scheme == "bf16":
        tensor = tensor.to(torch.bfloat16).view(torch.uint16)
    elif scheme == "f16":
        tensor = tensor.to(torch.float16)
    found: Numbers = tensor.cpu().numpy()
    return found
