"""How the CPU provider holds the weights in memory, which it does not tell: from the graph and what was measured once.

Growth of anonymous memory while loading agrees with these sums (docs/backends/onnx.md, "Memory"). Of other providers
nothing is known.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping

import onnx

from backends.onnx import graph
from backends.onnx.loading import Loaded
from backends.onnx.rounding import PROBED
from backends.onnx.weights import HEAD, INT4, SCALES, TABLE, Stored
from bench.api import GROUP

X86 = ("x86_64", "AMD64")
SCALE_BYTES = 4
"""Of a float32 scale, and of the float32 sum that x86 kernels keep for each block of codes where inputs are int8."""


def weights(loaded: Loaded, model: onnx.ModelProto, on_cpu: bool) -> str:
    """How the products' weights are coded, and what they are held as: `int8 group 32`, `f16 held as f32`, …"""
    stored = graph.stored_in(model)
    entry = stored[PROBED]
    if entry.dtype == "<f2":
        coded = PROBED + SCALES in loaded.notes["scales"]
        held_as = "f32" if on_cpu or not loaded.halved else "f16"
        if not coded:
            return "f16 held as f32" if on_cpu or not loaded.halved else "f16"
        return f"{'int4' if loaded.case.scheme == 'int4' else 'int8'} codes held as {held_as}"
    if loaded.dialect == "contrib":
        return f"int{entry.shape[-1] // 4} group 32"
    return "int4 group 32" if entry.dtype == INT4 else "int8 row"


def declared(model: onnx.ModelProto) -> str:
    """How the graph declares its products, for the evidence."""
    levels = graph.accuracy_levels(model)
    if levels:
        return f"accuracy_level {', '.join(map(str, sorted(levels)))}"
    entry = graph.stored_in(model)[PROBED]
    return "float16 weights" if entry.dtype == "<f2" else "DequantizeLinear before every product"


def resident_bytes(loaded: Loaded, model: onnx.ModelProto, *, rounded: bool) -> dict[str, int]:
    """Bytes of each tensor in memory on the CPU provider; `rounded`: the products' inputs are int8."""
    stored = graph.stored_in(model)
    packed = rounded and platform.machine() in X86
    held = {name: _bytes(name, entry, stored, packed) for name, entry in stored.items()}
    if loaded.dialect == "contrib" and not rounded and stored[HEAD].offset == stored[TABLE].offset:
        # a float32 head is used as it lies in the file: the same pages as the table
        held |= {name: 0 for name in (TABLE, TABLE + SCALES) if name in stored and TABLE + SCALES in stored}
    return held


def _bytes(name: str, entry: Stored, stored: Mapping[str, Stored], packed: bool) -> int:
    """Products are repacked, or folded into a float32 copy where the file has float16; the table stays as it lies."""
    if name == TABLE:
        return entry.size_bytes
    if entry.dtype == "<f2":
        return entry.size_bytes * 2
    if name.endswith(SCALES):
        product = stored[name.removesuffix(SCALES)]
        if name == TABLE + SCALES or len(product.shape) == 3:
            return entry.size_bytes
        return product.shape[0] // GROUP * product.shape[1] * SCALE_BYTES
    if packed and entry.dtype in ("|u1", "|i1", INT4):
        blocks = entry.shape[0] * entry.shape[1] // (1 if len(entry.shape) == 3 else GROUP)
        return entry.size_bytes + blocks * SCALE_BYTES
    return entry.size_bytes
