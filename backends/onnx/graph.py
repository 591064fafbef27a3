"""What a prepared graph says of itself, read back from its file: where weights lie, which nodes are products."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from backends.onnx.building import PRODUCT
from backends.onnx.weights import INT4, Stored
from bench.api import GROUP
from bench.types import Arch


def stored_in(model: onnx.ModelProto) -> dict[str, Stored]:
    """What lies where in `weights.bin`, read from the graph's initializers."""
    found: dict[str, Stored] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            plain = helper.tensor_dtype_to_np_dtype(tensor.data_type).newbyteorder("<").str
            dtype = INT4 if tensor.data_type == TensorProto.INT4 else plain
            found[tensor.name] = Stored(dtype, tuple(tensor.dims), int(entries["offset"]))
    return found


def accuracy_levels(model: onnx.ModelProto) -> set[int]:
    """The accuracy levels of the graph's MatMulNBits nodes; empty where there are none."""
    products = (node for node in model.graph.node if node.op_type == "MatMulNBits")
    return {attribute.i for node in products for attribute in node.attribute if attribute.name == "accuracy_level"}


def multiply_adds(model: onnx.ModelProto, arch: Arch, positions: int) -> dict[str, int]:
    """Multiplications of every matrix product, by its node's name, for a token that attends to `positions`."""
    sizes = {name: math.prod(_dims(tensor)) for name, tensor in stored_in(model).items()}
    attention = arch.q_rows * positions
    found = {}
    for node in model.graph.node:
        if node.name.endswith(PRODUCT):
            found[node.name] = sizes[node.name.removesuffix(PRODUCT)]
        elif node.op_type == "MatMul":
            found[node.name] = attention
        elif node.op_type == "GroupQueryAttention":
            found[node.name] = 2 * attention
    return found


def _dims(entry: Stored) -> tuple[int, ...]:
    """Of the numbers: the contrib operators take two of four bits in a byte."""
    packed = len(entry.shape) == 3 and entry.shape[-1] == GROUP // 2
    return (*entry.shape[:-1], GROUP) if packed else entry.shape


def load(path: Path) -> onnx.ModelProto:
    """The graph in `path` without its weights."""
    return onnx.load(path, load_external_data=False)
