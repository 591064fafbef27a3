"""The sample as steps: which graph takes which inputs, and the logits that must come out."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.onnx.standard import BLIND
from bench.api import Artifact
from bench.types import Case, Sample

STEPS_FILE = "check.json"
ACCEPTED = {"opset21": ("f32",), "opset17": ("a16-f16+out16", "f32+kv16")}
"""What honest arithmetic of a dialect may be: float32, or products in float16 where the hardware does not compute
wider, then only the cache is rounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`count` tokens from position `start` on, filled up to `width` where the graph's shapes are fixed.

    What fills up is written behind the tokens, is seen by none of them, and later ones are written over it.
    """

    name: str
    graph: str
    start: int
    count: int
    width: int
    heads: tuple[int, ...]

    @property
    def compared(self) -> list[int]:
        """Positions whose logits come out."""
        return [self.start + head for head in self.heads]


def plan(case: Case) -> list[Step]:
    """Prefill in chunks, then decode by token. A dynamic graph takes the prompt at once, all its logits wanted."""
    workload, static = case.workload, case.options["shapes"] == "static"
    prompt, chunk = workload.prompt_tokens, workload.chunk if static else workload.prompt_tokens
    graphs = ("prefill.onnx", "decode.onnx") if static else ("model.onnx", "model.onnx")
    steps = []
    for number, start in enumerate(range(0, prompt, chunk), 1):
        count = min(chunk, prompt - start)
        heads = (count - 1,) if static else tuple(range(count))
        name = f"prefill-{number}"
        steps.append(Step(name=name, graph=graphs[0], start=start, count=count, width=chunk, heads=heads))
    for number in range(workload.decode_steps):
        name = f"decode-{number + 1}"
        steps.append(Step(name=name, graph=graphs[1], start=prompt + number, count=1, width=1, heads=(0,)))
    return steps


def write(case: Case, artifact: Artifact, sample: Sample, into: Path, half: bool) -> None:
    """`inputs/STEP/INPUT.npy`, `expected/STEP.npy` and `check.json`.

    Of caches only what is not zero is kept, and only for the first decode step: the steps before and behind it give
    their own caches on.
    """
    steps = plan(case)
    dtype = np.dtype(np.float16 if half else np.float32)
    first_decode = next(step for step in steps if step.name.startswith("decode"))
    for step in steps:
        folder = into / "inputs" / step.name
        folder.mkdir(parents=True)
        for name, array in _inputs(case, artifact, sample, step).items():
            _save(folder / f"{name}.npy", array)
        if step is first_decode:
            for name, array in _cached(sample, step.start):
                _save(folder / f"{name}.npy", array.astype(dtype))
        (into / "expected").mkdir(exist_ok=True)
        _save(into / "expected" / f"{step.name}.npy", sample.logits[:, step.compared])
    (into / STEPS_FILE).write_text(json.dumps(_told(case, sample, steps, dtype), indent=1) + "\n", "utf-8")


def _inputs(case: Case, artifact: Artifact, sample: Sample, step: Step) -> dict[str, npt.NDArray[Any]]:
    rows, places = len(sample.ids), step.start + np.arange(step.width)
    ids = np.zeros((rows, step.width), np.int32)
    ids[:, : step.count] = sample.ids[:, step.start : step.start + step.count]
    angles = np.outer(places, artifact.inv_freq())
    seen = np.arange(case.kv_capacity) <= places[:, None]
    return {
        "input_ids": ids,
        "positions": np.tile(places.astype(np.int32), (rows, 1)),
        "mask": np.where(seen, 0, BLIND).astype(np.float32),
        "cos": np.cos(angles).astype(np.float32),
        "sin": np.sin(angles).astype(np.float32),
        "head_positions": np.array(step.heads, np.int64),
    }


def _cached(sample: Sample, length: int) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """The reference's first `length` keys and values, laid out as the graph's caches."""
    for layer, (keys, values) in enumerate(zip(sample.keys, sample.values, strict=True)):
        yield f"past.{layer}.key", keys[:, :length].transpose(0, 2, 3, 1)
        yield f"past.{layer}.value", values[:, :length].transpose(0, 2, 1, 3)


def _told(case: Case, sample: Sample, steps: list[Step], dtype: np.dtype[Any]) -> dict[str, Any]:
    """What the checker must know beside the arrays."""
    arch, rows = case.arch, len(sample.ids)
    shapes = {
        "key": [rows, arch.kv_heads, arch.head_dim, case.kv_capacity],
        "value": [rows, arch.kv_heads, case.kv_capacity, arch.head_dim],
    }
    return {
        "model": f"{case.model}-{case.scheme}",
        "dialect": case.options["dialect"],
        "accepted": ACCEPTED[case.options["dialect"]],
        "caches": {f"past.{layer}.{kind}": shapes[kind] for layer in range(arch.layers) for kind in shapes},
        "cache_dtype": dtype.name,
        "steps": [
            {
                "name": step.name,
                "graph": step.graph,
                "positions": rows * len(step.heads),
                "centred2": float(sample.centred2[:, step.compared].sum()),
                "delta2": _predicted(sample.delta2, step.compared),
            }
            for step in steps
        ],
    }


def _predicted(delta2: Mapping[str, npt.NDArray[np.float64]], positions: list[int]) -> dict[str, float]:
    return {name: float(values[:, positions].sum()) for name, values in delta2.items()}


def _save(path: Path, array: npt.NDArray[Any]) -> None:
    """As np.save, whose own writing hides why it failed: a full disk must be told as one."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array))
    path.write_bytes(buffer.getbuffer())
