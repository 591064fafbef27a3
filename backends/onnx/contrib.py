"""The decoder as an ONNX graph over `weights.bin`, dialect `contrib`: the operators that ONNX Runtime has for LLMs.

Inputs: input_ids int32 [batch, n]; last_key int32 [batch] and key_count int32 [], the index of the last key and the
number of keys after this step; head_positions int64 [k], which of the n positions go through the head; cos and sin
float32 [capacity, head_dim / 2]; past.L.key and past.L.value float32 [batch, kv_heads, capacity, head_dim].
Outputs: logits float32 [batch, k, vocab]; present.L.key and present.L.value, the past's own buffers.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto, helper

from backends.onnx.building import PRODUCT, Builder, Values
from backends.onnx.weights import HEAD, SCALES, TABLE, Stored
from bench.api import GROUP
from bench.types import Arch

OPSET = 21
CONTRIB = "com.microsoft"


def build(arch: Arch, stored: Mapping[str, Stored], accuracy_level: int) -> onnx.ModelProto:
    """The graph of `arch` over the tensors of `weights.bin`.

    `accuracy_level` is MatMulNBits': 0 computes in float32, 4 rounds activations to int8 in groups of 32.
    """
    return _Contrib(arch, stored, accuracy_level).model()


class _Contrib(Builder):
    def __init__(self, arch: Arch, stored: Mapping[str, Stored], accuracy_level: int):
        super().__init__(arch, stored)
        self.accuracy_level = accuracy_level

    def model(self) -> onnx.ModelProto:
        branch, hidden = "", self.embedding()
        for layer in range(self.arch.layers):
            at = f"blk.{layer}."
            normed, hidden = self.norm(at + "attn_norm.weight", hidden, branch)
            branch = self.attention(layer, normed)
            normed, hidden = self.norm(at + "ffn_norm.weight", hidden, branch)
            branch = self.feed_forward(at, normed)
        normed, _ = self.norm("output_norm.weight", hidden, branch)
        chosen = self.add("Gather", [normed, "head_positions"], "head_rows", axis=1)
        self.product(HEAD, chosen, output="logits")
        return self.finished(*self.signature(), {"": OPSET, CONTRIB: 1})

    def signature(self) -> tuple[Values, Values]:
        floats, value = TensorProto.FLOAT, helper.make_tensor_value_info
        rope: list[str | int | None] = ["capacity", self.arch.head_dim // 2]
        cache: list[str | int | None] = ["batch", self.arch.kv_heads, "capacity", self.arch.head_dim]
        caches = [f"{layer}.{kind}" for layer in range(self.arch.layers) for kind in ("key", "value")]
        inputs = [
            value("input_ids", TensorProto.INT32, ["batch", "n"]),
            value("last_key", TensorProto.INT32, ["batch"]),
            value("key_count", TensorProto.INT32, []),
            value("head_positions", TensorProto.INT64, ["k"]),
            value("cos", floats, rope),
            value("sin", floats, rope),
            *(value(f"past.{name}", floats, cache) for name in caches),
        ]
        logits = value("logits", floats, ["batch", "k", self.arch.vocab])
        return inputs, [logits, *(value(f"present.{name}", floats, cache) for name in caches)]

    def embedding(self) -> str:
        if TABLE + SCALES in self.stored:
            inputs = [TABLE, "input_ids", TABLE + SCALES]
            return self.add(
                "GatherBlockQuantized",
                inputs,
                "embedding",
                CONTRIB,
                bits=8,
                block_size=GROUP,
                quantize_axis=1,
                gather_axis=0,
            )
        rows = self.add("Gather", [TABLE, "input_ids"], "embedding", axis=0)
        return self.add("Cast", [rows], "embedding/f32", to=TensorProto.FLOAT)

    def norm(self, name: str, hidden: str, branch: str) -> tuple[str, str]:
        """RMS norm of `hidden` + `branch`, and that sum."""
        eps = self.arch.norm_eps
        if not branch:
            return self.add(
                "SimplifiedLayerNormalization", [hidden, name], name + "/norm", axis=-1, epsilon=eps
            ), hidden
        total = name + "/sum"
        outputs = [name + "/norm", "", "", total]
        self.add("SkipSimplifiedLayerNormalization", [hidden, branch, name], outputs, CONTRIB, epsilon=eps)
        return outputs[0], total

    def attention(self, layer: int, hidden: str) -> str:
        arch, at = self.arch, f"blk.{layer}."
        qkv = self.product(at + "attn_qkv.weight", hidden, at + "attn_qkv.bias" if arch.qkv_bias else "")
        projections = self.normed_heads(at, qkv) if arch.qk_norm else [qkv, "", ""]
        caches = [f"past.{layer}.key", f"past.{layer}.value"]
        mixed = self.add(
            "GroupQueryAttention",
            [*projections, *caches, "last_key", "key_count", "cos", "sin"],
            [at + "attention", f"present.{layer}.key", f"present.{layer}.value"],
            CONTRIB,
            num_heads=arch.heads,
            kv_num_heads=arch.kv_heads,
            scale=arch.head_dim**-0.5,
            do_rotary=1,
            rotary_interleaved=0,
        )
        return self.product(at + "attn_output.weight", mixed)

    def normed_heads(self, at: str, qkv: str) -> list[str]:
        """Q and K normalized head by head, and V."""
        arch = self.arch
        names = [at + "q", at + "k", at + "v"]
        sizes = self.constant("qkv_sizes", [arch.q_rows, arch.kv_rows, arch.kv_rows])
        self.add("Split", [qkv, sizes], names, axis=-1)
        normed = []
        for name, kind, heads in zip(names, ("attn_q_norm", "attn_k_norm"), (arch.heads, arch.kv_heads), strict=False):
            split = self.constant(f"heads_{heads}", [0, 0, heads, arch.head_dim])
            by_head = self.add("Reshape", [name, split], name + "/heads")
            weight = f"{at}{kind}.weight"
            norm = self.add("SimplifiedLayerNormalization", [by_head, weight], weight + "/norm", epsilon=arch.norm_eps)
            flat = self.constant(f"rows_{heads}", [0, 0, heads * arch.head_dim])
            normed.append(self.add("Reshape", [norm, flat], name + "/normed"))
        return [*normed, names[2]]

    def feed_forward(self, at: str, hidden: str) -> str:
        gate = self.product(at + "ffn_gate.weight", hidden)
        sigmoid = self.add("Sigmoid", [gate], at + "gate/sigmoid")
        silu = self.add("Mul", [gate, sigmoid], at + "gate/silu")
        up = self.product(at + "ffn_up.weight", hidden)
        gated = self.add("Mul", [silu, up], at + "gated")
        return self.product(at + "ffn_down.weight", gated)

    def product(self, name: str, hidden: str, bias: str = "", output: str = "") -> str:
        """`hidden` times the transposed weight `name`, plus `bias`."""
        output = output or name + PRODUCT
        if name + SCALES in self.stored:
            rows, groups, group_bytes = self.stored[name].shape
            return self.add(
                "MatMulNBits",
                [hidden, name, name + SCALES, *(["", "", bias] if bias else [])],
                output,
                CONTRIB,
                node=name + PRODUCT,
                K=groups * GROUP,
                N=rows,
                bits=8 * group_bytes // GROUP,
                block_size=GROUP,
                accuracy_level=self.accuracy_level,
            )
        weight = self.add("Cast", [name], name + "/f32", to=TensorProto.FLOAT)
        plain = name + "/unbiased" if bias else output
        self.add("FusedMatMul", [hidden, weight], plain, CONTRIB, node=name + PRODUCT, transB=1)
        return self.add("Add", [plain, bias], output, node=name + "/biased") if bias else plain
