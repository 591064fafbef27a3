"""What a session really does: read from the runtime and from the graph that it loaded."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from backends.onnx import graph, providers
from backends.onnx.known import CPU
from backends.onnx.weights import HEAD, SCALES, TABLE, Stored
from bench.facts import Evidence, PhaseFacts, Placement, SessionFacts
from bench.types import Arch, Device

ISA_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm", "sve")
X86 = ("x86_64", "AMD64")
BLOCK_SUM_BYTES = 4
"""The x86 kernels of accuracy_level 4 keep a float32 sum for each block of codes beside its scale."""


def facts(session: Any, path: Path, asked: str, device: Device, arch: Arch, kv_device: str) -> SessionFacts:
    """Effective precision, placement, threads and resident bytes of `session`, which loaded the graph in `path`."""
    model = graph.load(path)
    stored = graph.stored_in(model)
    levels = graph.accuracy_levels(model)
    placement = _placement(session, model, stored)
    on_cpu = all(place.device == CPU for place in placement if place.matmul_share)
    rounded = on_cpu and levels == {4}
    phase = PhaseFacts(activations="a8-g32" if rounded else "f32", compute="f32", kernels=_kernels(model, placement))
    packed = rounded and platform.machine() in X86
    resident = {name: _resident_bytes(name, entry, packed) for name, entry in stored.items()}
    table = [name for name in (TABLE, TABLE + SCALES) if name in stored]
    if on_cpu and levels == {0} and stored[HEAD].offset == stored[TABLE].offset:
        resident |= dict.fromkeys(table, 0)  # the head is used as it lies in the file: the same pages as the table
    options = session.get_session_options()
    return SessionFacts(
        weights=_weights(stored),
        prefill=phase,
        decode=phase,
        kv_cache="f32",
        devices=(device,),
        asked_placement=asked,
        placement=placement,
        threads=options.intra_op_num_threads,
        resident_weight_bytes=sum(resident.values()),
        embedding_bytes=sum(resident[name] for name in table),
        kv_bytes_per_token=2 * arch.layers * arch.kv_rows * 4,
        evidence=_evidence(path, levels, kv_device, options, packed),
    )


def _placement(session: Any, model: onnx.ModelProto, stored: Mapping[str, Stored]) -> tuple[Placement, ...]:
    """Per provider: operations by kind, and the share of the matrix products by the bytes of their weights."""
    weight_of = graph.product_weights(model)
    operations: dict[str, Counter[str]] = {}
    product_bytes: Counter[str] = Counter()
    for subgraph in session.get_provider_graph_assignment_info():
        kinds = operations.setdefault(subgraph.ep_name, Counter())
        for node in subgraph.get_nodes():
            kinds[node.op_type] += 1
            if node.name in weight_of:
                product_bytes[subgraph.ep_name] += stored[weight_of[node.name]].size_bytes
    total = sum(stored[weight].size_bytes for weight in weight_of.values())
    return tuple(
        Placement(device=name, matmul_share=product_bytes[name] / total, operations=dict(kinds))
        for name, kinds in operations.items()
    )


def _kernels(model: onnx.ModelProto, placement: tuple[Placement, ...]) -> dict[str, str]:
    """The operator of each kind of work and the provider that most of it was given to."""
    kinds = {node.op_type for node in model.graph.node}
    candidates = {
        "matmul": ("MatMulNBits", "FusedMatMul"),
        "attention": ("GroupQueryAttention",),
        "embedding": ("GatherBlockQuantized", "Gather"),
    }
    named = {}
    for work, operators in candidates.items():
        operator = next(op for op in operators if op in kinds)
        _, device = max((place.operations.get(operator, 0), place.device) for place in placement)
        named[work] = f"{operator} on {device}"
    return named


def _weights(stored: Mapping[str, Stored]) -> str:
    """How the products' weights are coded: `int8 group 32`, `int4 group 32`, `f16 held as f32`."""
    product = "blk.0.attn_output.weight"
    if product + SCALES not in stored:
        return "f16 held as f32"
    return f"int{stored[product].shape[-1] // 4} group 32"


def _resident_bytes(name: str, entry: Stored, packed: bool) -> int:
    """Bytes of one tensor in memory.

    A product's float16 weight is folded into a float32 copy; quantized products get block sums where `packed`.
    """
    if name == TABLE:
        return entry.size_bytes
    if entry.dtype == "<f2":
        return entry.size_bytes * 2
    if packed and len(entry.shape) == 3:
        rows, groups, _ = entry.shape
        return entry.size_bytes + rows * groups * BLOCK_SUM_BYTES
    return entry.size_bytes


def _evidence(path: Path, levels: set[int], kv_device: str, options: Any, packed: bool) -> tuple[Evidence, ...]:
    weights = "weights as its initializers declare them"
    if packed:
        weights += ", packed at load with a float32 sum for each block of 32 (assumed of the x86 kernels, not read)"
    told = [
        ("InferenceSession.get_provider_graph_assignment_info", "placement, node by node"),
        ("InferenceSession.get_session_options", f"{options.intra_op_num_threads} threads within an operation"),
        ("InferenceSession.get_input_memory_infos", f"KV cache float32 in {kv_device} memory, past is present"),
        (path.name, weights),
        (path.name, f"accuracy_level {', '.join(map(str, sorted(levels)))}" if levels else "float32 products"),
    ]
    flags = [flag for flag in ISA_FLAGS if flag in _cpu_flags()]
    if flags:
        told.append(("/proc/cpuinfo", "instruction sets that the kernels choose from: " + " ".join(flags)))
    return tuple(Evidence(source=source, claim=claim) for source, claim in told)


def _cpu_flags() -> set[str]:
    info = providers.cpu_info()
    return set((info.get("flags") or info.get("Features") or "").split())
