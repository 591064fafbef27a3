"""What a prepared graph says of itself, read back from its file: where weights lie, which nodes are products."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from backends.onnx.building import PRODUCT
from backends.onnx.weights import INT4, Stored


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


def product_weights(model: onnx.ModelProto) -> dict[str, str]:
    """Name of the weight of every matrix product, by the node's name."""
    named = (node.name for node in model.graph.node if node.name.endswith(PRODUCT))
    return {name: name.removesuffix(PRODUCT) for name in named}


def load(path: Path) -> onnx.ModelProto:
    """The graph in `path` without its weights."""
    return onnx.load(path, load_external_data=False)
