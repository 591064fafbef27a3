"""The decoder in operators of the ONNX standard alone, for providers that know no others and for vendors' compilers.

Level `opset21`: weights as the artifact's integers, DequantizeLinear before every product, all else in float32. Level
`opset17`: weights as float16 (code times scale, which is exact); all products, attention's too, take and give float16,
the cache holds float16, and all between them is float32 (what overflows in float16 is there). Where the graph is the
exact one everything is float32 on either level. Attention, norms and rotary positions are decomposed; no shape is
computed in the graph: one graph serves any batch, length and cache, and a compiler that wants them fixed can have them.

Inputs, T being float16 with half products, else float32: input_ids int32 [batch, n]; positions int32 [batch, n], the
slots of the cache that the n tokens are written to; mask float32 [n, capacity], 0 where a token sees a slot and `BLIND`
elsewhere; cos and sin float32 [n, head_dim / 2], of the tokens' positions; head_positions int64 [k], which of the n go
through the head; past.L.key T [batch, kv_heads, head_dim, capacity]; past.L.value T [batch, kv_heads, capacity,
head_dim].
Outputs: logits float32 [batch, k, vocab]; present.L.key and present.L.value, the past with the tokens written into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from backends.onnx.building import PRODUCT, Builder, Values
from backends.onnx.weights import HEAD, INT4, SCALES, TABLE, Stored
from bench.api import GROUP
from bench.types import Arch

Level = Literal["opset21", "opset17"]
OPSETS: Mapping[Level, int] = {"opset21": 21, "opset17": 17}
BLIND = float(np.finfo(np.float16).min)
"""Added to a score that must not count: finite in either type, and nothing is left of it after the softmax."""


def build(arch: Arch, stored: Mapping[str, Stored], level: Level, *, half: bool) -> onnx.ModelProto:
    """The graph of `arch` over the tensors of the file of weights; `half`: products and cache are float16."""
    return _Standard(arch, stored, level, half).model()


class _Standard(Builder):
    def __init__(self, arch: Arch, stored: Mapping[str, Stored], level: Level, half: bool):
        super().__init__(arch, stored)
        self.level, self.half = level, half
        self.cache_type = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        self.narrowed: dict[str, str] = {}

    def model(self) -> onnx.ModelProto:
        hidden = self.embedding()
        self.slots("key", [0, 1, 1, -1], [1, self.arch.kv_heads, self.arch.head_dim, 1])
        self.slots("value", [0, 1, -1, 1], [1, self.arch.kv_heads, 1, self.arch.head_dim])
        for layer in range(self.arch.layers):
            at = f"blk.{layer}."
            mixed = self.attention(layer, self.norm(at + "attn_norm.weight", hidden))
            hidden = self.add("Add", [hidden, mixed], at + "attended")
            fed = self.feed_forward(at, self.norm(at + "ffn_norm.weight", hidden))
            hidden = self.add("Add", [hidden, fed], at + "out")
        chosen = self.add("Gather", [hidden, "head_positions"], "head_rows", axis=1)
        self.product(HEAD, self.norm("output_norm.weight", chosen), "logits")
        return self.finished(*self.signature(), {"": OPSETS[self.level]})

    def signature(self) -> tuple[Values, Values]:
        arch, value = self.arch, helper.make_tensor_value_info
        shapes: dict[str, list[str | int | None]] = {
            "key": ["batch", arch.kv_heads, arch.head_dim, "capacity"],
            "value": ["batch", arch.kv_heads, "capacity", arch.head_dim],
        }
        caches = {f"{layer}.{kind}": shape for layer in range(arch.layers) for kind, shape in shapes.items()}
        inputs = [
            value("input_ids", TensorProto.INT32, ["batch", "n"]),
            value("positions", TensorProto.INT32, ["batch", "n"]),
            value("mask", TensorProto.FLOAT, ["n", "capacity"]),
            value("cos", TensorProto.FLOAT, ["n", arch.head_dim // 2]),
            value("sin", TensorProto.FLOAT, ["n", arch.head_dim // 2]),
            value("head_positions", TensorProto.INT64, ["k"]),
            *(value(f"past.{name}", self.cache_type, shape) for name, shape in caches.items()),
        ]
        logits = value("logits", TensorProto.FLOAT, ["batch", "k", arch.vocab])
        return inputs, [logits, *(value(f"present.{name}", self.cache_type, shape) for name, shape in caches.items())]

    def slots(self, kind: str, place: list[int], repeat: list[int]) -> None:
        """The tokens' slots for every number that is written: the cache's shape, with n tokens as long."""
        rows = self.reshaped("positions", f"slots/{kind}/rows", f"slots_of_{kind}", place)
        self.add("Expand", [rows, self.constant(f"repeat_{kind}", repeat)], f"slots/{kind}")

    def embedding(self) -> str:
        rows = self.add("Gather", [TABLE, "input_ids"], "embedding/rows", axis=0)
        if TABLE + SCALES not in self.stored or self.stored[TABLE].dtype == "<f2":
            return self.wide(rows, "embedding")
        codes = self.add("Cast", [rows], "embedding/codes", to=TensorProto.FLOAT)
        scales = self.add("Gather", [TABLE + SCALES, "input_ids"], "embedding/scales", axis=0)
        return self.add("Mul", [codes, scales], "embedding")

    def norm(self, name: str, hidden: str) -> str:
        """RMS norm over the last axis."""
        squares = self.add("Pow", [hidden, self.constant("two", 2.0, np.float32)], name + "/squares")
        if OPSETS[self.level] < 18:
            mean = self.add("ReduceMean", [squares], name + "/mean", axes=[-1], keepdims=1)
        else:
            mean = self.add("ReduceMean", [squares, self.constant("last_axis", [-1])], name + "/mean", keepdims=1)
        positive = self.add("Add", [mean, self.constant("epsilon", self.arch.norm_eps, np.float32)], name + "/positive")
        root = self.add("Sqrt", [positive], name + "/root")
        return self.add("Mul", [self.add("Div", [hidden, root], name + "/scaled"), name], name + "/norm")

    def attention(self, layer: int, hidden: str) -> str:
        arch, at = self.arch, f"blk.{layer}."
        query, key, value = self.heads(at, hidden)
        query, key = self.rotated(query), self.rotated(key)
        scale = self.constant("attention_scale", arch.head_dim**-0.5, np.float32)
        query = self.add("Mul", [query, scale], query + "/scaled")
        by_column = self.add("Transpose", [key], key + "/columns", perm=[0, 1, 3, 2])
        keys = self.cached(f"{layer}.key", by_column, "slots/key", axis=3)
        values = self.cached(f"{layer}.value", value, "slots/value", axis=2)
        grouped = self.reshaped(query, at + "grouped", "kv_heads", [0, arch.kv_heads, -1, arch.head_dim])
        scores = self.multiplied(grouped, keys, at + "scores")
        by_head = self.reshaped(scores, at + "scores/by_head", "scores_of_heads", [0, arch.heads, -1, 0])
        masked = self.add("Add", [by_head, "mask"], at + "scores/masked")
        weights = self.add("Softmax", [masked], at + "weights", axis=-1)
        regrouped = self.reshaped(weights, at + "weights/grouped", "weights_of_kv", [0, arch.kv_heads, -1, 0])
        mixed = self.multiplied(regrouped, values, at + "mixed")
        split = self.reshaped(mixed, at + "mixed/by_head", "mixed_of_heads", [0, arch.heads, -1, arch.head_dim])
        turned = self.add("Transpose", [split], at + "mixed/by_token", perm=[0, 2, 1, 3])
        flat = self.reshaped(turned, at + "attention", "q_rows", [0, 0, arch.q_rows])
        return self.product(at + "attn_output.weight", flat)

    def heads(self, at: str, hidden: str) -> tuple[str, str, str]:
        """Query, key and value [batch, heads, n, head_dim], with bias and norm where the family has them."""
        arch = self.arch
        stacked = self.product(at + "attn_qkv.weight", hidden)
        if arch.qkv_bias:
            stacked = self.add("Add", [stacked, at + "attn_qkv.bias"], at + "qkv/biased")
        sizes = self.constant("qkv_sizes", [arch.q_rows, arch.kv_rows, arch.kv_rows])
        names = [at + "q", at + "k", at + "v"]
        self.add("Split", [stacked, sizes], names, axis=-1)
        turned = []
        for name, count in zip(names, (arch.heads, arch.kv_heads, arch.kv_heads), strict=True):
            rows = self.reshaped(name, name + "/heads", f"heads_{count}", [0, 0, count, arch.head_dim])
            if arch.qk_norm and not name.endswith("v"):
                rows = self.norm(f"{at}attn_{name[-1]}_norm.weight", rows)
            turned.append(self.add("Transpose", [rows], name + "/turned", perm=[0, 2, 1, 3]))
        return turned[0], turned[1], turned[2]

    def rotated(self, rows: str) -> str:
        """First half against second half, by the angles of the tokens' positions."""
        half = self.constant("halves", [self.arch.head_dim // 2] * 2)
        first, second = rows + "/first", rows + "/second"
        self.add("Split", [rows, half], [first, second], axis=-1)
        turns = {}
        for part, table in ((first, "cos"), (second, "sin"), (second, "cos"), (first, "sin")):
            turns[part, table] = self.add("Mul", [part, table], f"{part}/{table}")
        left = self.add("Sub", [turns[first, "cos"], turns[second, "sin"]], rows + "/left")
        right = self.add("Add", [turns[second, "cos"], turns[first, "sin"]], rows + "/right")
        return self.add("Concat", [left, right], rows + "/rotated", axis=-1)

    def cached(self, name: str, new: str, slots: str, axis: int) -> str:
        """The cache with the new rows in their slots."""
        return self.add("ScatterElements", [f"past.{name}", slots, self.narrow(new)], f"present.{name}", axis=axis)

    def feed_forward(self, at: str, hidden: str) -> str:
        gate = self.product(at + "ffn_gate.weight", hidden)
        silu = self.add("Mul", [gate, self.add("Sigmoid", [gate], at + "gate/sigmoid")], at + "gate/silu")
        gated = self.add("Mul", [silu, self.product(at + "ffn_up.weight", hidden)], at + "gated")
        return self.product(at + "ffn_down.weight", gated)

    def product(self, name: str, hidden: str, output: str = "") -> str:
        """`hidden` [batch, n, columns] times the weight `name` [columns, rows]."""
        return self.multiplied(hidden, self.weight(name), name + PRODUCT, output)

    def weight(self, name: str) -> str:
        entry = self.stored[name]
        if entry.dtype == "<f2":
            return name if self.half else self.wide(name, name + "/f32")
        layout: dict[str, Any] = {"axis": 0, "block_size": GROUP} if entry.dtype == INT4 else {"axis": 1}
        return self.add("DequantizeLinear", [name, name + SCALES], name + "/values", **layout)

    def multiplied(self, left: str, right: str, name: str, output: str = "") -> str:
        """The product of float32 `left` and `right`, which has the type of products; float32."""
        if not self.half:
            return self.add("MatMul", [left, right], output or name, node=name)
        half = self.add("MatMul", [self.narrow(left), right], name + "/f16", node=name)
        return self.wide(half, output or name)

    def narrow(self, value: str) -> str:
        """A float32 value as products take it."""
        if self.half and value not in self.narrowed:
            self.narrowed[value] = self.add("Cast", [value], value + "/narrow", to=TensorProto.FLOAT16)
        return self.narrowed.get(value, value)

    def wide(self, value: str, output: str) -> str:
        return self.add("Cast", [value], output, node=output + "/wide", to=TensorProto.FLOAT)

    def reshaped(self, value: str, output: str, constant: str, shape: list[int]) -> str:
        return self.add("Reshape", [value, self.constant("shape_" + constant, shape)], output)
