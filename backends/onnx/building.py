"""What all dialects build their graphs with: nodes that are named, constants that are kept once, weights in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from backends.onnx.weights import INT4, WEIGHTS_FILE, Stored
from bench.types import Arch

IR_VERSION = 10
PRODUCT = "/product"
"""Ends the name of the node that multiplies with a weight; the rest is the weight's name."""
Values = list[onnx.ValueInfoProto]


class Builder:
    """Appends nodes; every method that makes one returns the name of what it made."""

    def __init__(self, arch: Arch, stored: Mapping[str, Stored]):
        self.arch, self.stored = arch, stored
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def finished(self, inputs: Values, outputs: Values, opsets: Mapping[str, int]) -> onnx.ModelProto:
        """The model of all nodes so far, over those weights that they use; `opsets` by domain."""
        used = {name for node in self.nodes for name in node.input}
        weights = [external(name, entry) for name, entry in self.stored.items() if name in used]
        graph = helper.make_graph(self.nodes, "decoder", inputs, outputs, [*weights, *self.constants.values()])
        imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="evenbench")

    def add(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: str | list[str],
        domain: str = "",
        node: str = "",
        **attributes: Any,
    ) -> str:
        names = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(helper.make_node(op, inputs, names, name=node or names[0], domain=domain, **attributes))
        return names[0]

    def constant(self, name: str, values: Any, dtype: npt.DTypeLike = np.int64) -> str:
        self.constants.setdefault(name, numpy_helper.from_array(np.array(values, dtype), name))
        return name


def external(name: str, entry: Stored) -> onnx.TensorProto:
    """The declaration of a tensor that lies in the file of weights."""
    tensor = TensorProto(name=name, data_location=TensorProto.EXTERNAL, dims=entry.shape)
    tensor.data_type = (
        TensorProto.INT4 if entry.dtype == INT4 else helper.np_dtype_to_tensor_dtype(np.dtype(entry.dtype))
    )
    for key, value in {"location": WEIGHTS_FILE, "offset": entry.offset, "length": entry.size_bytes}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor
