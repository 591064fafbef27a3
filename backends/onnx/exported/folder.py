"""Writes the folder: graphs that are checked, their weights in pieces, what they take, the sample, the checker."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import helper, shape_inference

from backends.onnx import standard, standard_weights
from backends.onnx.exported import pieces, readme, steps
from backends.onnx.exporting import PIECE_BYTES
from backends.onnx.graph import stored_in
from backends.onnx.standard import Level
from backends.onnx.weights import WEIGHTS_FILE
from bench.api import Artifact, Progress
from bench.errors import CaseError
from bench.types import Case, Sample

OLDEST_IR = {"opset17": 8, "opset21": 10}
"""The oldest version of the file format that has what a dialect needs: compilers are older than their runtimes."""
MEANINGS = {
    "input_ids": "token ids",
    "positions": "slots of the cache that the tokens are written to",
    "mask": f"0 where a token sees a slot, {standard.BLIND:g} elsewhere",
    "cos": "of the tokens' rotary angles: position times frequency",
    "sin": "of the same angles",
    "head_positions": "which of the n tokens logits are wanted of",
    "logits": "one row for each head position",
    "past": "the cache before the step; zeros at first",
    "present": "the cache after it, the next step's past",
}


def write(
    case: Case,
    artifact: Artifact,
    sample: Sample,
    into: Path,
    progress: Progress,
    piece_bytes: int = PIECE_BYTES,
) -> None:
    """Write the model of `case` into the empty folder `into`; CaseError where a graph is not clean."""
    level: Level = case.options["dialect"]
    half = level == "opset17"
    planned = standard_weights.places(artifact, level)
    model = standard.build(artifact.arch, planned, level, half=half)
    used = stored_in(model)
    pieces.check_sizes(used, piece_bytes)
    _describe(model, case, artifact, level)
    graphs = _graphs(model, case)
    standard_weights.write(artifact, into / WEIGHTS_FILE, level, progress)
    placed = pieces.cut(into / WEIGHTS_FILE, used, piece_bytes)
    for name, graph in graphs.items():
        _relocate(graph, placed)
        (into / name).write_bytes(graph.SerializeToString())
        _check(into / name)
    (into / "shapes.json").write_text(
        json.dumps({name: _shapes(graph) for name, graph in graphs.items()}, indent=1) + "\n", "utf-8"
    )
    steps.write(case, artifact, sample, into, half)
    shutil.copyfile(Path(__file__).with_name("check.py"), into / "check.py")
    names = sorted({file for file, _ in placed.values()}, key=lambda name: (len(name), name))
    (into / "README.md").write_text(readme.text(case, sample, graphs, names), "utf-8")


def _graphs(model: onnx.ModelProto, case: Case) -> dict[str, onnx.ModelProto]:
    """The graph of any shape, or one for prefill and one for decode with all of theirs fixed."""
    if case.options["shapes"] == "dynamic":
        _inferred(model, "model.onnx")
        return {"model.onnx": model}
    fixed = {"batch": case.workload.batch, "capacity": case.kv_capacity, "k": 1}
    return {
        "prefill.onnx": _fixed(model, "prefill.onnx", {**fixed, "n": case.workload.chunk}),
        "decode.onnx": _fixed(model, "decode.onnx", {**fixed, "n": 1}),
    }


def _fixed(model: onnx.ModelProto, name: str, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """A copy whose inputs have these dimensions, and all that follows from them."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.HasField("dim_param"):
                dimension.dim_value = sizes[dimension.dim_param]
    fixed = _inferred(fixed, name)
    for value in fixed.graph.value_info:
        if not all(dimension.HasField("dim_value") for dimension in value.type.tensor_type.shape.dim):
            raise CaseError(f"{value.name} has no fixed shape", phase="export", where=name)
    return fixed


def _inferred(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """`model` with the shapes of everything in it, inferred strictly."""
    try:
        return shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:
        raise CaseError("shapes do not fit together", phase="export", where=name, cause=str(error)) from error


def _check(path: Path) -> None:
    """What the standard's own checker says, with the files of weights in their places."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:
        raise CaseError("onnx.checker refuses it", phase="export", where=path.name, cause=str(error)) from error


def _describe(model: onnx.ModelProto, case: Case, artifact: Artifact, level: Level) -> None:
    model.ir_version = OLDEST_IR[level]
    told = {"model": f"{case.model}-{case.scheme}", "dialect": level, "weights": artifact.digest}
    helper.set_model_props(model, told)


def _relocate(model: onnx.ModelProto, placed: pieces.Places) -> None:
    for tensor in model.graph.initializer:
        if tensor.name in placed:
            location, offset = placed[tensor.name]
            for entry in tensor.external_data:
                entry.value = {"location": location, "offset": str(offset)}.get(entry.key, entry.value)


def _shapes(model: onnx.ModelProto) -> dict[str, list[dict[str, Any]]]:
    return {
        kind: [
            {
                "name": value.name,
                "dtype": helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
                "shape": [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim],
                "meaning": MEANINGS[value.name.partition(".")[0]],
            }
            for value in values
        ]
        for kind, values in (("inputs", model.graph.input), ("outputs", model.graph.output))
    }
