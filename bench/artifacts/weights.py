"""Synthetic weights: for one tensor and a range of its rows, the bytes that belong there.

Everything is a lookup in a table indexed by the bytes of a counter-based generator (Philox, whose raw output numpy
keeps stable), keyed on model, tensor and seed: neither order nor parallelism nor the machine changes a bit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.api import GROUP, Q4_BLOCK, Q8_BLOCK, row_ranges
from bench.artifacts.layout import ROPE_FACTORS, TensorSpec, rope_factors
from bench.types import Arch

WEIGHTS_VERSION = 1
"""Raise it whenever a bit of the synthetic weights changes: cached artifacts are keyed on it."""

CHUNK_BYTES = 1 << 20  # a chunk and its random bytes stay in the second-level cache; 16 MiB halves the speed
SMALLEST_SCALE = 2.0**-14  # fp16's smallest normal number
SCALE_JITTER = 0.25
BIAS_STD = 0.3
_BLOCK_BYTES = 32  # what one count of Philox's counter yields
_QUANTILES = [NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)]


def _int8_table() -> npt.NDArray[np.int8]:
    codes: npt.NDArray[np.int8] = np.rint(36 * np.array(_QUANTILES)).astype(np.int8)
    codes[0], codes[-1] = -127, 127  # 256 quantiles end at ±104; the whole range must be exercised
    return codes


_INT8 = _int8_table()
_INT4 = np.clip(np.rint(2.7 * np.array(_QUANTILES)), -8, 7).astype(np.int8)
_JITTER = np.exp(SCALE_JITTER * np.array(_QUANTILES))
_JITTER /= math.sqrt(float(np.mean(_JITTER**2)))
_INT8_STD = math.sqrt(float(np.mean(_INT8.astype(np.float64) ** 2)))
_INT4_STD = math.sqrt(float(np.mean(_INT4.astype(np.float64) ** 2)))


def round_bits(values: npt.NDArray[np.float64], bits: int) -> npt.NDArray[np.float64]:
    """`values` with `bits` significant bits."""
    mantissa, exponent = np.frexp(values)
    rounded: npt.NDArray[np.float64] = np.ldexp(np.rint(np.ldexp(mantissa, bits)), exponent - bits)
    return rounded


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRecipe:
    """Everything that decides a tensor's bytes."""

    arch: Arch
    model: str
    seed: int
    spec: TensorSpec

    def chunks(self) -> Iterator[bytes]:
        """The tensor's stored bytes from first to last, about a mebibyte at a time."""
        if len(self.spec.shape) == 1:
            yield self._vector().astype("<f4").tobytes()
            return
        rows, columns = self.spec.shape
        for start, stop in row_ranges(rows, columns, CHUNK_BYTES):
            yield self._matrix_rows(start, stop)

    def _matrix_rows(self, start: int, stop: int) -> bytes:
        rows, columns = stop - start, self.spec.shape[1]
        raw = self._random("codes", start * columns, rows * columns)
        if self.spec.scheme == "int4":
            return self._int4_rows(raw, start, rows)
        codes = _translated(raw, _INT8).view(np.int8)
        scales = self._scales(_INT8_STD)[self._random_bytes("scales", start, rows)]
        if self.spec.scheme == "int8":
            blocks = np.empty((rows, columns // GROUP), Q8_BLOCK)
            blocks["scale"] = scales[:, None]
            blocks["codes"] = codes.reshape(rows, -1, GROUP)
            return blocks.tobytes()
        # The unquantized baselines hold the products of int8: exact in fp16, rounded in bf16.
        products = codes.reshape(rows, columns) * scales.astype(np.float32)[:, None]
        return products.astype("<f2").tobytes() if self.spec.scheme == "f16" else _to_bf16(products).tobytes()

    def _int4_rows(self, raw: bytes, start: int, rows: int) -> bytes:
        groups = self.spec.shape[1] // GROUP
        halves = _translated(raw, _INT4 + 8).reshape(rows, groups, 2, GROUP // 2)
        row = self._random_bytes("scales", start, rows)
        group = self._random_bytes("group scales", start * groups, rows * groups).reshape(rows, groups)
        blocks = np.empty((rows, groups), Q4_BLOCK)
        blocks["scale"] = self._group_scales()[row[:, None], group]
        blocks["codes"] = halves[:, :, 0] | (halves[:, :, 1] << 4)
        return blocks.tobytes()

    def _scales(self, code_std: float) -> npt.NDArray[np.float16]:
        """[256] the scales of this tensor: its standard deviation, jittered, in four significant bits."""
        return _as_scales(_JITTER * (standard_deviation(self.arch, self.spec.name) / code_std))

    def _group_scales(self) -> npt.NDArray[np.float16]:
        """[256, 256] by row and by group in the row."""
        spread = np.multiply.outer(_JITTER, _JITTER)
        return _as_scales(spread * (standard_deviation(self.arch, self.spec.name) / _INT4_STD))

    def _vector(self) -> npt.NDArray[np.float64]:
        """Norms and biases, each exact in bf16."""
        name, size = self.spec.name, self.spec.shape[0]
        if name == ROPE_FACTORS:
            return rope_factors(self.arch)
        random = self._random_bytes("vector", 0, size)
        if name.endswith(".bias"):
            std = BIAS_STD * (_rebalance(self.arch)[0] if ".attn_v." in name else 1.0)
            return round_bits(std * np.array(_QUANTILES), 8)[random]
        if name.endswith(("attn_q_norm.weight", "attn_k_norm.weight")):
            return _norm_weights(random, 0.6875)  # mean square 1.49: the scores' standard deviation
        norm = _norm_weights(random, 0.5)
        if name != "output_norm.weight" or not self.arch.tied:
            return norm
        # The embedding serves as lm_head: this norm brings the logits down, and its signs keep every token from
        # predicting itself.
        signs = np.where(random & 128, -1.0, 1.0)
        return round_bits(signs * norm * (2.5 / math.sqrt(self.arch.hidden)), 8)

    def _random(self, purpose: str, start: int, count: int) -> bytes:
        """`count` bytes of the stream of `purpose` from byte `start` on."""
        name = f"{self.model}\0{self.spec.name}\0{self.seed}\0{purpose}"
        key = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], "<u8")
        block, skip = divmod(start, _BLOCK_BYTES)
        words = -(-(skip + count) // 8)
        raw = np.random.Philox(key=key, counter=block).random_raw(words)
        data = raw.astype("<u8", copy=False).tobytes()
        return data if skip == 0 and len(data) == count else data[skip : skip + count]

    def _random_bytes(self, purpose: str, start: int, count: int) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self._random(purpose, start, count), np.uint8)


def standard_deviation(arch: Arch, name: str) -> float:
    """Of a matrix: keeps hidden norms stable, scores near a standard deviation of 1.5 and logits near 2.5."""
    inward = 1 / math.sqrt(arch.hidden)
    value_gain, up_gain = _rebalance(arch)
    kind = name.removesuffix(".weight").split(".")[-1]
    return {
        "token_embd": 1.0,
        "attn_q": math.sqrt(1.5) * inward,
        "attn_k": math.sqrt(1.5) * inward,
        "attn_v": inward * value_gain,
        "attn_output": _output_std(arch) / value_gain,
        "ffn_gate": inward,
        "ffn_up": inward * up_gain,
        "ffn_down": _down_std(arch) / up_gain,
        "output": 2.5 * inward,
    }[kind]


def _output_std(arch: Arch) -> float:
    return 2.4 / math.sqrt(arch.q_rows * 2 * arch.layers)


def _down_std(arch: Arch) -> float:
    return 3.2 / math.sqrt(arch.ffn * 2 * arch.layers)


def _rebalance(arch: Arch) -> tuple[float, float]:
    """Gains of V and up, at most 1, that o_proj and down make up for.

    In large models the scales of o_proj and down would fall below fp16's smallest normal number, all rows clipped to
    the same one. The products V·o_proj and up·down stay what they were.
    """
    least = 2 * SMALLEST_SCALE * _INT8_STD
    return min(1.0, _output_std(arch) / least), min(1.0, _down_std(arch) / least)


def _as_scales(wanted: npt.NDArray[np.float64]) -> npt.NDArray[np.float16]:
    """Four significant bits and no subnormals: code × scale is exact in fp16."""
    return np.maximum(round_bits(wanted, 4), SMALLEST_SCALE).astype(np.float16)


def _norm_weights(random: npt.NDArray[np.uint8], low: float) -> npt.NDArray[np.float64]:
    """Odd multiples of 1/128 above `low`, over a range of 1: exact in bf16 and never 1."""
    weights: npt.NDArray[np.float64] = low + ((random & 63) * 2.0 + 1) / 128
    return weights


def _translated(raw: bytes, table: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(raw.translate(table.tobytes()), np.uint8)


def _to_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Bits of bf16, round to nearest even; `values` finite."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
