"""The decoder as an OpenVINO model, in the form that the plugins' fusions look for.

Inputs: input_ids, position_ids int64 [batch, n]; attention_mask int64 [batch, total], ones; beam_idx int32 [batch],
which row of the cache each row continues; head_positions int64 [k], which of the n positions go through the head.
Output: logits float32 [batch, k, vocab]. Keys and values are the model's state, one variable a layer and kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from openvino.op import Constant, assign, read_value
from openvino.op.util import Variable, VariableInfo

from backends.openvino.weights import OFFSET, SCALES
from bench.types import Arch

TABLE, HEAD = "token_embd.weight", "output.weight"
PRODUCT = "/product"
"""Suffix of the name of the product with a weight."""
F32, I64 = np.float32, np.int64
MASKED = -65504.0
"""What a masked score gets: the least float16, as exporters use; its exponential is 0."""


def build(arch: Arch, inv_freq: Any, tensors: Mapping[str, ov.Tensor]) -> ov.Model:
    """The model of `arch` over `tensors`, by the artifact's names; scales stand beside their codes."""
    return _Builder(arch, inv_freq, tensors).model()


class _Builder:
    """Makes nodes with names of their own: what the runtime shows and what is written must not depend on counters."""

    def __init__(self, arch: Arch, inv_freq: Any, tensors: Mapping[str, ov.Tensor]):
        self.arch, self.inv_freq, self.tensors = arch, np.asarray(inv_freq, F32), tensors
        self.constants: dict[str, Any] = {}
        self.sinks: list[Any] = []
        self.named: set[str] = set()

    def model(self) -> ov.Model:
        ids = self.input("input_ids", ov.Type.i64, [-1, -1])
        mask = self.input("attention_mask", ov.Type.i64, [-1, -1])
        positions = self.input("position_ids", ov.Type.i64, [-1, -1])
        self.beams = self.input("beam_idx", ov.Type.i32, [-1])
        chosen = self.input("head_positions", ov.Type.i64, [-1])
        self.batch = self.name(
            "batch", ops.gather(ops.shape_of(ids, "i64"), self.ints("first", [0]), self.ints("axis0", 0))
        )
        self.mask = self.causal(ids, mask)
        self.cos, self.sin = self.rotation(positions)
        hidden = self.embedding(ids)
        for layer in range(self.arch.layers):
            at = f"blk.{layer}."
            attended = self.attention(layer, self.norm(at + "attn_norm.weight", hidden))
            hidden = self.name(at + "attn_residual", ops.add(hidden, attended))
            fed = self.feed_forward(at, self.norm(at + "ffn_norm.weight", hidden))
            hidden = self.name(at + "ffn_residual", ops.add(hidden, fed))
        rows = self.name("head_rows", ops.gather(hidden, chosen, self.ints("axis1", 1)))
        logits = self.product(HEAD if HEAD in self.tensors else TABLE, self.norm("output_norm.weight", rows), "logits")
        result = self.name("logits/result", ops.result(logits))
        logits.output(0).set_names({"logits"})
        model = ov.Model([result], self.sinks, [ids, mask, positions, self.beams, chosen], "decoder")
        for place, node in enumerate(model.get_ordered_ops()):
            if node.get_friendly_name() not in self.named:
                node.set_friendly_name(f"{node.get_type_name()}.{place}")
        return model

    def name(self, name: str, node: Any) -> Any:
        self.named.add(name)
        node.set_friendly_name(name)
        return node

    def input(self, name: str, kind: ov.Type, shape: list[int]) -> Any:
        node = self.name(name, ops.parameter(shape, kind))
        node.output(0).set_names({name})
        return node

    def ints(self, name: str, value: Any) -> Any:
        return self.small(name, np.array(value, I64))

    def small(self, name: str, value: Any) -> Any:
        """A small constant, once a name."""
        if name not in self.constants:
            self.constants[name] = self.name(name, ops.constant(value))
        return self.constants[name]

    def weight(self, name: str) -> Any:
        if name not in self.constants:
            self.constants[name] = self.name(name, Constant(self.tensors[name]))
        return self.constants[name]

    def causal(self, ids: Any, mask: Any) -> Any:
        """float32 [batch, 1, n, total], once for all layers: 0 where a query may look, else the least float16."""
        one = self.ints("one", 1)
        length = ops.gather(ops.shape_of(ids, "i64"), self.ints("second", 1), self.ints("axis0", 0))
        total = ops.gather(ops.shape_of(mask, "i64"), self.ints("second", 1), self.ints("axis0", 0))
        keys = ops.range(self.ints("zero", 0), total, one, "i64")
        queries = ops.unsqueeze(ops.range(ops.subtract(total, length), total, one, "i64"), self.ints("axis1", 1))
        earlier = ops.less_equal(keys, queries)
        present = ops.unsqueeze(ops.not_equal(mask, self.ints("zero", 0)), self.ints("axes12", [1, 2]))
        allowed = ops.logical_and(earlier, present)
        return ops.select(allowed, self.small("seen", F32(0)), self.small("masked", F32(MASKED)))

    def rotation(self, positions: Any) -> tuple[Any, Any]:
        """cos and sin [batch, 1, n, head_dim] of position × frequency, both halves alike."""
        freqs = self.small("inv_freq", self.inv_freq.reshape(1, 1, -1))
        places = ops.unsqueeze(ops.convert(positions, "f32"), self.ints("axis2", 2))
        half = ops.multiply(places, freqs)
        angles = ops.concat([half, half], -1)
        return tuple(ops.unsqueeze(f(angles), self.ints("axis1", 1)) for f in (ops.cos, ops.sin))

    def embedding(self, ids: Any) -> Any:
        axis = self.ints("axis0", 0)
        rows = ops.convert(ops.gather(self.weight(TABLE), ids, axis), "f32")
        if TABLE + SCALES not in self.tensors:
            return rows
        scales = ops.convert(ops.gather(self.weight(TABLE + SCALES), ids, axis), "f32")
        return ops.multiply(rows, scales)

    def norm(self, name: str, hidden: Any) -> Any:
        """x / rms(x) · weight over the last axis."""
        mean = ops.reduce_mean(ops.power(hidden, self.small("two", F32(2))), self.ints("last", [-1]), True)
        eps = self.small("eps", np.full([1] * 3, self.arch.norm_eps, F32))
        scale = ops.divide(self.small("unit", F32(1)), ops.sqrt(ops.add(mean, eps)))
        return ops.multiply(ops.multiply(hidden, scale), self.weight(name))

    def product(self, name: str, hidden: Any, called: str = "") -> Any:
        codes = self.weight(name)
        kind = codes.get_element_type()
        if name + SCALES not in self.tensors:
            weight = ops.convert(codes, "f32")
        else:
            weight = ops.convert(codes, "f16")
            if kind == ov.Type.u4:
                offset = self.small("offset", np.full([1, 1, 1], OFFSET, np.uint8))
                weight = ops.subtract(weight, ops.convert(offset, "f16"))
            weight = ops.multiply(weight, self.weight(name + SCALES))
            if kind == ov.Type.u4:
                rows, groups, group = codes.shape
                weight = ops.reshape(weight, self.ints(f"matrix{rows}x{groups}", [rows, groups * group]), False)
            weight = ops.convert(weight, "f32")
        return self.name(called or name + PRODUCT, ops.matmul(hidden, weight, False, True))

    def attention(self, layer: int, hidden: Any) -> Any:
        at = f"blk.{layer}."
        arch = self.arch
        stacked = self.product(at + "attn_qkv.weight", hidden)
        if arch.qkv_bias:
            stacked = ops.add(stacked, self.weight(at + "attn_qkv.bias"))
        lengths = self.ints("qkv", [arch.q_rows, arch.kv_rows, arch.kv_rows])
        q, k, v = ops.variadic_split(stacked, self.ints("last", [-1]), lengths).outputs()
        q = self.rotate(self.heads(q, arch.heads, at + "attn_q_norm.weight"))
        k = self.cached(f"{layer}.key", self.rotate(self.heads(k, arch.kv_heads, at + "attn_k_norm.weight")))
        v = self.cached(f"{layer}.value", self.heads(v, arch.kv_heads))
        scale = self.small("scale", F32(arch.head_dim**-0.5))
        mixed = ops.scaled_dot_product_attention(q, self.shared(k), self.shared(v), self.mask, scale)
        flat = ops.reshape(
            ops.transpose(mixed, self.ints("bnhd", [0, 2, 1, 3])), self.ints("flat", [0, 0, arch.q_rows]), True
        )
        return self.product(at + "attn_output.weight", flat)

    def heads(self, rows: Any, count: int, norm: str = "") -> Any:
        """[batch, count, n, head_dim] of [batch, n, count × head_dim], normalized where the family has that norm."""
        out = ops.reshape(rows, self.ints(f"heads{count}", [0, 0, count, self.arch.head_dim]), True)
        if norm in self.tensors:
            out = self.norm(norm, out)
        return ops.transpose(out, self.ints("bnhd", [0, 2, 1, 3]))

    def rotate(self, x: Any) -> Any:
        half = self.arch.head_dim // 2
        first, second = (self.part(x, a, b) for a, b in ((0, half), (half, 2 * half)))
        turned = ops.concat([ops.multiply(second, self.small("minus", F32(-1))), first], -1)
        return ops.add(ops.multiply(x, self.cos), ops.multiply(turned, self.sin))

    def part(self, x: Any, start: int, stop: int) -> Any:
        return ops.slice(
            x,
            self.ints(f"at{start}", [start]),
            self.ints(f"at{stop}", [stop]),
            self.ints("step", [1]),
            self.ints("last", [-1]),
        )

    def cached(self, name: str, new: Any) -> Any:
        arch = self.arch
        info = VariableInfo()
        info.data_shape = ov.PartialShape([-1, arch.kv_heads, -1, arch.head_dim])
        info.data_type = ov.Type.f32
        info.variable_id = name
        variable = Variable(info)
        shape = ops.concat([self.batch, self.ints("cache", [arch.kv_heads, 0, arch.head_dim])], 0)
        empty = ops.broadcast(self.small("zerof", F32(0)), shape)
        past = ops.gather(read_value(empty, variable), self.beams, self.ints("axis0", 0))
        both = self.name("present." + name, ops.concat([past, new], 2))
        self.sinks.append(assign(both, variable))
        return both

    def shared(self, x: Any) -> Any:
        arch = self.arch
        group = arch.heads // arch.kv_heads
        if group == 1:
            return x
        wide = ops.broadcast(
            ops.unsqueeze(x, self.ints("axis2", 2)),
            self.ints("group", [1, 1, group, 1, 1]),
            broadcast_spec="BIDIRECTIONAL",
        )
        return ops.reshape(wide, self.ints("allheads", [0, arch.heads, -1, arch.head_dim]), True)

    def feed_forward(self, at: str, hidden: Any) -> Any:
        gate = ops.swish(self.product(at + "ffn_gate.weight", hidden))
        return self.product(at + "ffn_down.weight", ops.multiply(gate, self.product(at + "ffn_up.weight", hidden)))
