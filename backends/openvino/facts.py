"""What a session really does: read from the compiled model, from its runtime model, and from one of its products."""

from __future__ import annotations

import os
from typing import Any, cast

import numpy as np

from backends.openvino import devices, ir, rounding, runtime_model
from backends.openvino.compiling import Compiled, spelled
from backends.openvino.failures import LOWERED
from backends.openvino.graph import HEAD, TABLE
from backends.openvino.runtime_model import Layer
from backends.openvino.weights import SCALES
from bench.facts import PATH_ROWS, Activations, Compute, Evidence, PhaseFacts, Placement, SessionFacts
from bench.types import Arch

PROBED = "blk.0.attn_output.weight"
"""The product whose rounding is asked for: every family has it, and it is coded as all layers are."""
MOST_ROWS = 128
"""Tokens of the prefill that is looked at: no plugin is known to change its kernels beyond 64."""
NUMBER_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "u8": 1, "i8": 1}
SCALE_AND_ZERO_BYTES = 8
"""A float32 scale and zero point for every token and head of an 8-bit cache."""


def read(compiled: Compiled, arch: Arch, rows: int) -> SessionFacts:
    """Effective precision and kernels by phase, placement, threads and bytes.

    Executes some tokens in an infer request of its own; `rows` is how many a prefill feeds at once.
    """
    rows = min(max(rows, PATH_ROWS), MOST_ROWS)
    compute = cast(Compute, compiled.kind("INFERENCE_PRECISION_HINT"))
    kv = compiled.kind("KV_CACHE_PRECISION")
    kv = compute if kv in (None, "dynamic") else kv
    looked = {count: _layers_after(compiled, count) for count in sorted({1, PATH_ROWS, rows})}
    probed = _probed(compiled, arch, compute, tuple(looked))
    group = compiled.property("DYNAMIC_QUANTIZATION_GROUP_SIZE")
    declared: Activations = {None: compute, 0: compute, 32: "a8-g32"}.get(group, "a8-token")
    rounded = {count: found or declared for count, found in probed.items()}
    phases = {
        count: PhaseFacts(activations=rounded[count], compute=compute, kernels=runtime_model.kernels(found))
        for count, found in looked.items()
    }
    constants = compiled.constants
    table = [node for name, node in constants.items() if name.startswith(TABLE) and HEAD in constants]
    operations = runtime_model.operations(looked[1])
    return SessionFacts(
        weights=_weights(constants),
        prefill=phases[rows],
        path=phases[PATH_ROWS] if rounded[PATH_ROWS] != rounded[rows] else None,
        decode=phases[1],
        kv_cache=kv,
        devices=tuple(devices.described(compiled.core, name) for name in compiled.executed),
        asked_placement=compiled.asked,
        placement=(Placement(device=spelled(compiled.executed), matmul_share=1.0, operations=operations),),
        threads=compiled.property("INFERENCE_NUM_THREADS") or None,
        resident_weight_bytes=sum(_held_bytes(node, compute) for node in constants.values()),
        embedding_bytes=sum(_held_bytes(node, compute) for node in table),
        kv_bytes_per_token=_kv_bytes(arch, kv),
        isa=compiled.instruction_set(),
        evidence=_evidence(compiled, probed, kv),
    )


def _layers_after(compiled: Compiled, count: int) -> list[Layer]:
    """The runtime model's layers after a step of `count` tokens on a cache that holds one."""
    request = compiled.runtime.create_infer_request()
    for start, stop in ((0, 1), (1, 1 + count)):
        request.infer(
            {
                "input_ids": np.zeros((1, stop - start), np.int64),
                "attention_mask": np.ones((1, stop), np.int64),
                "position_ids": np.arange(start, stop)[None],
                "beam_idx": np.zeros(1, np.int32),
                "head_positions": np.array([stop - start - 1]),
            },
            share_inputs=True,
        )
    return runtime_model.layers(compiled.runtime.get_runtime_model())


def _probed(compiled: Compiled, arch: Arch, compute: Compute, counts: tuple[int, ...]) -> dict[int, Activations | None]:
    """What steps of each number of tokens round the inputs of products to; None where that is not clear."""
    codes = ir.codes(compiled.constants, arch, PROBED)
    assert codes is not None  # every model has this tensor
    product = compiled.alone(rounding.product(compiled.model, PROBED))
    return {count: rounding.found(product, codes, count, compute) for count in counts}


def _weights(constants: dict[str, Any]) -> str:
    """How the products' weights are coded: `int8 row`, `int4 group 32`, `f16`."""
    kind: str = constants[PROBED].get_element_type().get_type_name()
    return {"i8": "int8 row", "u4": "int4 group 32"}.get(kind, kind)


def _held_bytes(constant: Any, compute: Compute) -> int:
    """Codes as the file has them; 16-bit numbers are held in the type that the products compute in."""
    if constant.get_element_type().get_type_name() not in ("f16", "bf16") or constant.get_friendly_name().endswith(
        SCALES
    ):
        return int(constant.get_byte_size())
    return int(constant.get_byte_size()) // 2 * NUMBER_BYTES[compute]


def _kv_bytes(arch: Arch, kind: str) -> int:
    number = NUMBER_BYTES[kind]
    beside = arch.kv_heads * SCALE_AND_ZERO_BYTES if number == 1 else 0
    return 2 * arch.layers * (arch.kv_rows * number + beside)


def _evidence(compiled: Compiled, probed: dict[int, Activations | None], kv: str) -> tuple[Evidence, ...]:
    asked = "CompiledModel.get_property"
    rows = ", ".join(f"{name or 'none that is clear'} at {count} rows" for count, name in sorted(probed.items()))
    fresh = "; the step that fills an empty cache attends to unrounded keys and values" if kv == "u8" else ""
    told = [
        (f"{asked}('EXECUTION_DEVICES')", ", ".join(compiled.executed)),
        (
            f"{asked}('INFERENCE_PRECISION_HINT')",
            f"products and attention compute in {compiled.kind('INFERENCE_PRECISION_HINT')}",
        ),
        (f"{asked}('KV_CACHE_PRECISION')", kv + fresh),
        (f"a product of {PROBED} alone, with these properties", f"rounds its inputs as {rows}"),
        (f"{asked}('DYNAMIC_QUANTIZATION_GROUP_SIZE')", str(compiled.property("DYNAMIC_QUANTIZATION_GROUP_SIZE"))),
        ("CompiledModel.get_runtime_model", "kernels of each phase, after steps of as many tokens"),
        ("constants of the IR", "bytes of the weights: codes as the file has them, 16-bit numbers as products compute"),
    ]
    if isa := compiled.instruction_set():
        told.append((f"{asked}('RUNTIME_REQUIREMENTS')", f"kernels may use {isa}"))
    if LOWERED in os.environ:
        told.append(("environment", f"{LOWERED}={os.environ[LOWERED]}"))
    if compiled.property("LOADED_FROM_CACHE"):
        told.append((f"{asked}('LOADED_FROM_CACHE')", "kernels were compiled in an earlier launch"))
    return tuple(Evidence(source=source, claim=claim) for source, claim in told)
