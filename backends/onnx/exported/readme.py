"""The README of an exported folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from backends.onnx.exported.steps import ACCEPTED, plan
from backends.onnx.exported.vendors import UNKNOWN, VENDORS
from bench.types import Case, Sample

TYPES = {
    "opset21": "Weights are the model's integers with a DequantizeLinear before every product (float16 where the "
    "scheme is fp16); all else is float32, the cache too.",
    "opset17": "Weights are float16, code times scale, which is exact: int8 or int4 are what they hold, not what "
    "is computed. All products take and give float16, the cache is float16, and all between is float32. A rate "
    "measured with it is no rate of int8 or int4.",
}


def text(case: Case, sample: Sample, graphs: Mapping[str, onnx.ModelProto], pieces: Sequence[str]) -> str:
    """What is in the folder, how it is checked, how a cache is kept, how compilers are called."""
    dialect = case.options["dialect"]
    parts = [
        f"# {case.model}-{case.scheme}, {dialect}\n",
        "Written by Evenbench's `bench export onnx`. The weights are synthetic, of the model's true architecture: "
        "they measure a chip and its compiler and answer no question.\n",
        _files(case, graphs, pieces),
        f"## Numbers\n\n{TYPES[dialect]}\n",
        _expected(case, sample),
        _checking(),
        _stepping(case),
        _vendors(graphs),
    ]
    return "\n".join(parts)


def _files(case: Case, graphs: Mapping[str, onnx.ModelProto], pieces: Sequence[str]) -> str:
    workload, static = case.workload, case.options["shapes"] == "static"
    what = {
        "prefill.onnx": f"a step of {workload.chunk} tokens, logits of one of them",
        "decode.onnx": "a step of one token",
        "model.onnx": "a step of n tokens, logits of k of them, any batch and capacity",
    }
    fixed = f"Batch {workload.batch}, cache of {case.kv_capacity} positions, every shape fixed. " if static else ""
    rows = [
        *((f"`{name}`", what[name]) for name in graphs),
        (", ".join(f"`{name}`" for name in pieces), "the weights, beside the graphs and shared by them"),
        ("`shapes.json`", "inputs and outputs: name, type, shape, meaning"),
        ("`inputs/STEP/`, `expected/STEP.npy`", "a sample, step by step: inputs, and the logits of the reference"),
        ("`check.json`", "the steps, and the error that each precision must cause in them"),
        ("`check.py`", "the checker; needs onnxruntime and numpy"),
        ("`SHA256SUMS`", "`sha256sum -c SHA256SUMS`"),
    ]
    table = "\n".join(f"| {name} | {meaning} |" for name, meaning in rows)
    return f"## Files\n\n{fixed}onnx.checker and strict shape inference are clean.\n\n| | |\n|---|---|\n{table}\n"


def _expected(case: Case, sample: Sample) -> str:
    """The error that each precision causes, over all positions of the sample that are compared."""
    compared = sorted({position for step in plan(case) for position in step.compared})
    centred2 = float(sample.centred2[:, compared].sum())
    found = {name: float((values[:, compared].sum() / centred2) ** 0.5) for name, values in sample.delta2.items()}
    accepted = ACCEPTED[case.options["dialect"]]
    names = [*accepted, *(name for name in ("f32", "f16", "bf16", "a16-f16", "a8-g32", "a8-token") if name in found)]
    rows = [
        f"| `{name}`{' (accepted)' if name in accepted else ''} | "
        f"{'under 1e-4' if name == 'f32' else format(found[name], '.2g')} |"
        for name in dict.fromkeys(names)
    ]
    return (
        "Error is ‖logits − reference‖ / ‖reference − its mean‖ against a float32 pass over the same integers. What a "
        "precision rounds decides how large it must be; `check.py` accepts up to 1.25 times that of those marked, and "
        "others only where `--precision` names them:\n\n| precision | predicted error |\n|---|---|\n"
        + "\n".join(rows)
        + "\n\n`f32`: float32 throughout. `f32+kv16`: only the cache is float16. `a16-f16+out16`: products take and "
        "give float16. `f16`, `bf16`: everything is held in that type. `a16-f16`: only the products' inputs are "
        "float16. `a8-g32`, `a8-token`: inputs of products rounded to int8 by groups of 32 or by token.\n"
    )


def _checking() -> str:
    return """## Check

    pip install onnxruntime numpy
    python check.py                                       # ONNX Runtime on the CPU; exit code 0 or 1
    python check.py --provider CANNExecutionProvider      # another provider; refuses to leave nodes to the CPU
    python check.py --provider NAME --plugin FILE.so --option KEY=VALUE
    python check.py --inputs DIR                          # all inputs of prefill-1 and decode-1 as complete .npy files
    python check.py --outputs DIR                         # compare DIR/STEP.npy, logits that another runtime made
"""


def _stepping(case: Case) -> str:
    width = f" A step of fewer than {case.workload.chunk} tokens is filled up with any ids."
    return (
        "## Steps\n\nThe cache begins as zeros; `present.*` of a step is `past.*` of the next. Token number p of a row "
        "is written to slot p: `positions` holds p, `mask` 0 for slots 0 to p and the lowest float16 behind, `cos` and "
        "`sin` the angles p times frequency."
        + (width if case.options["shapes"] == "static" else "")
        + " What lies behind a "
        "token is never seen and is written over later.\n"
    )


def _vendors(graphs: Mapping[str, onnx.ModelProto]) -> str:
    names = " and with ".join(name.removesuffix(".onnx") for name in graphs)
    parts = [
        "## Compilers\n\nTaken from what makers and users published. **Nobody here has executed any of these**: none "
        "of the hardware was at hand, nor is it known of each whether it reads weights that lie beside the graph. To "
        f"be executed in this folder, with {names} for GRAPH.\n"
    ]
    for vendor in VENDORS:
        call = "\n".join(f"    {line}" for line in vendor.call.splitlines())
        parts.append(f"### {vendor.name}\n\n{call}\n\n{vendor.note}\n")
    parts.append(
        f"No public command line was found for {', '.join(UNKNOWN)}; where there is a provider of ONNX Runtime, "
        "`check.py --provider` tells whether it takes the graph.\n"
    )
    return "\n".join(parts)
