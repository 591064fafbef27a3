"""What `prepare` writes: `weights.bin`, and the graphs `native.onnx` and `exact.onnx` over it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import onnx

from backends.onnx import contrib, standard, standard_weights, weights
from bench.api import Artifact, Progress
from bench.types import Prepared

ACCURACY_LEVELS = {"native": 4, "exact": 0}
"""MatMulNBits' accuracy_level: 4 is what onnxruntime-genai ships, 0 computes in float32."""


def prepare(artifact: Artifact, dialect: str, into: Path, progress: Progress) -> Prepared:
    """Write the files of `dialect` into the empty folder `into`; `progress` counts tensors."""
    file = into / weights.WEIGHTS_FILE
    graphs: dict[str, onnx.ModelProto]
    if dialect == "contrib":
        stored = weights.write(artifact, file, progress)
        graphs = {name: contrib.build(artifact.arch, stored, level) for name, level in ACCURACY_LEVELS.items()}
    else:
        level: standard.Level = "opset17" if dialect == "opset17" else "opset21"
        stored = standard_weights.write(artifact, file, level, progress)
        halves = {"native": level == "opset17", "exact": False}
        graphs = {name: standard.build(artifact.arch, stored, level, half=half) for name, half in halves.items()}
    for name, graph in graphs.items():
        (into / f"{name}.onnx").write_bytes(graph.SerializeToString())
    notes = {
        "arch": asdict(artifact.arch),
        "inv_freq": artifact.inv_freq().tolist(),
        "dialect": dialect,
        "scales": standard_weights.noted(stored) if dialect != "contrib" else {},
    }
    return Prepared(path=str(into), files=(file.name, *(f"{name}.onnx" for name in graphs)), notes=notes)
