"""What a provider rounds, found by asking it: no provider says in which precision it computes what it was given.

One product of the model itself, as the graph has it, is loaded alone on the same provider with the same options, is
given random rows, and its answer is held against each way of rounding. Behind the product stands a multiplication, so
that the answer also tells whether what is not a product is rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from backends.onnx import graph, providers
from backends.onnx.building import PRODUCT, external
from backends.onnx.loading import Loaded
from backends.onnx.weights import WEIGHTS_FILE, Stored
from bench.api import Codes
from bench.facts import CLEAR, Activations, Compute, rounded_to_half, rounded_to_int8
from bench.types import Float32

PROBED = "blk.0.attn_output.weight"
"""Every family has it, and it is coded as all products of layers are."""
FACTOR = np.float32(1.25)
"""Exact in every type, unlike a half's product with it."""
COLUMNS = 512
"""Outputs that are compared."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """Of a product's inputs, its results, what other operations give; `arithmetic` is what inputs were before."""

    inputs: Activations
    results: Compute
    others: Compute
    arithmetic: Compute

    @property
    def kind(self) -> tuple[str, ...]:
        """What tells it from others in the errors that it makes: beside int8 inputs little else shows."""
        if self.inputs.startswith("a8"):
            return self.inputs, self.arithmetic
        return self.inputs, self.others, self.results if self.others == "f32" else ""


def probe(loaded: Loaded, model: onnx.ModelProto, counts: tuple[int, ...]) -> dict[int, Rounding | None]:
    """How steps of each number of tokens round in the loaded `model`; None where no way explains the answer clearly."""
    codes = loaded.codes(PROBED)
    assert codes is not None  # every model has this tensor
    alone = _alone(model, loaded.path, codes.shape[1]).SerializeToString()
    if not loaded.prompts:
        session = _answering(loaded, alone, {})
        return {count: _found(session, codes, count) for count in counts}
    return {count: _found(_answering(loaded, alone, {"n": count}), codes, count) for count in counts}


def _answering(loaded: Loaded, alone: bytes, dims: Mapping[str, int]) -> Any | None:
    """The product alone, loaded as the model is; None where the provider asked for does not take it so."""
    try:
        session = providers.open_session(alone, loaded.case, dims).session
    except Exception:  # it takes the model, and its own reason not to take so small a graph decides nothing
        return None
    taken = {
        node.name: part.ep_name for part in session.get_provider_graph_assignment_info() for node in part.get_nodes()
    }
    return session if taken.get(PROBED + PRODUCT) == loaded.provider else None


def _alone(model: onnx.ModelProto, path: Path, columns: int) -> onnx.ModelProto:
    """rows float32 [1, n, columns] times the probed weight times FACTOR, as `model` multiplies with it."""
    made_by = {output: node for node in model.graph.node for output in node.output}
    stored = graph.stored_in(model)
    product = onnx.NodeProto()
    product.CopyFrom(next(node for node in model.graph.node if node.name == PROBED + PRODUCT))
    nodes = [made_by[name] for name in product.input[1:] if name in made_by]
    inputs = [name for node in (product, *nodes) for name in node.input if name in stored]
    before = made_by[product.input[0]]
    half = before.op_type == "Cast" and before.attribute[0].i == TensorProto.FLOAT16
    result = product.output[0]
    if half:
        nodes.append(helper.make_node("Cast", ["rows"], [product.input[0]], name="narrow", to=TensorProto.FLOAT16))
        nodes += [product, helper.make_node("Cast", [result], ["wide"], name="wide", to=TensorProto.FLOAT)]
    else:
        product.input[0] = "rows"
        nodes.append(product)
    nodes.append(helper.make_node("Mul", ["wide" if half else result, "factor"], ["answer"], name="others"))
    file = path.with_name(WEIGHTS_FILE)
    weights = [_inline(name, stored[name], file) for name in dict.fromkeys(inputs)]
    made = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [1, "n", columns])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, "n", None])],
        [*weights, numpy_helper.from_array(FACTOR, "factor")],
    )
    return helper.make_model(made, opset_imports=model.opset_import, ir_version=model.ir_version)


def _inline(name: str, entry: Stored, file: Path) -> onnx.TensorProto:
    """A weight with its bytes in it: a graph that is no file cannot name another."""
    tensor = external(name, entry)
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT
    tensor.raw_data = entry.mapped(file).tobytes()
    return tensor


def _found(session: Any | None, codes: Codes, count: int) -> Rounding | None:
    if session is None:
        return None
    inputs = np.random.default_rng(count).standard_normal((count, codes.shape[1]), dtype=np.float32)
    answer = session.run(None, {"rows": inputs[None]})[0][0, :, :COLUMNS]
    weights = codes.values(0, min(COLUMNS, codes.shape[0]))
    residual = {way: float(np.linalg.norm(answer - expected)) for way, expected in _ways(inputs, weights)}
    best = min(residual, key=lambda way: residual[way])
    others = min(residual[way] for way in residual if way.kind != best.kind)
    return best if residual[best] < CLEAR * others else None


def _ways(inputs: Float32, weights: Float32) -> Iterator[tuple[Rounding, Float32]]:
    """Every way of rounding with what it answers."""
    arithmetics: tuple[Compute, ...] = ("f32", "f16", "bf16")
    for arithmetic in arithmetics:
        stored = rounded_to_half(inputs, arithmetic)
        rounded: dict[Activations, Float32] = {arithmetic: stored, **rounded_to_int8(stored)}
        for name, rows in rounded.items():
            result = rows @ weights.T
            yield Rounding(name, "f32", "f32", arithmetic), result * FACTOR
            if arithmetic == "f32":
                continue
            narrow = rounded_to_half(result, arithmetic)
            yield Rounding(name, arithmetic, "f32", arithmetic), narrow * FACTOR
            yield Rounding(name, arithmetic, arithmetic, arithmetic), rounded_to_half(narrow * FACTOR, arithmetic)
            yield Rounding(name, "f32", arithmetic, arithmetic), rounded_to_half(result * FACTOR, arithmetic)
