"""What a session really does: read from the runtime and from the graph that it loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from backends.onnx import graph, providers
from backends.onnx.weights import SCALES, TABLE, Stored
from bench.types import Arch, Device, Evidence, PhaseFacts, Placement, SessionFacts

ISA_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm", "sve")
PACKED_COPY = "packed once at load into a layout of the kernel's own, of about the same size"


def facts(session: Any, path: Path, asked: str, device: Device, arch: Arch, kv_device: str) -> SessionFacts:
    """Effective precision, placement, threads and resident bytes of `session`, which loaded the graph in `path`."""
    model = graph.load(path)
    stored = graph.stored_in(model)
    levels = graph.accuracy_levels(model)
    rounded = levels == {4} and asked == providers.CPU
    phase = PhaseFacts(
        activations="a8-g32" if rounded else "f32",
        compute="f32",
        kernels=_kernels(model, asked),
    )
    options = session.get_session_options()
    placement = _placement(session, model, stored)
    return SessionFacts(
        weights=_weights(stored),
        prefill=phase,
        decode=phase,
        kv_cache="f32",
        devices=(device,),
        asked_placement=asked,
        placement=placement,
        threads=options.intra_op_num_threads,
        resident_weight_bytes=sum(_resident_bytes(name, entry) for name, entry in stored.items()),
        embedding_bytes=sum(stored[name].size_bytes for name in (TABLE, TABLE + SCALES) if name in stored),
        kv_bytes_per_token=2 * arch.layers * arch.kv_rows * 4,
        evidence=_evidence(path, levels, kv_device, options),
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


def _kernels(model: onnx.ModelProto, provider: str) -> dict[str, str]:
    kinds = {node.op_type for node in model.graph.node}
    named = {
        "matmul": ("MatMulNBits", "FusedMatMul"),
        "attention": ("GroupQueryAttention",),
        "embedding": ("GatherBlockQuantized", "Gather"),
    }
    return {work: f"{next(op for op in operators if op in kinds)} on {provider}" for work, operators in named.items()}


def _weights(stored: Mapping[str, Stored]) -> str:
    """How the products' weights are coded: `int8 group 32`, `int4 group 32`, `f16 held as f32`."""
    product = "blk.0.attn_output.weight"
    if product + SCALES not in stored:
        return "f16 held as f32"
    return f"int{stored[product].shape[-1] // 4} group 32"


def _resident_bytes(name: str, entry: Stored) -> int:
    """The runtime folds a product's cast into a float32 copy of its float16 weight; the rest stays as stored."""
    folded = entry.dtype == "<f2" and name != TABLE
    return entry.size_bytes * 2 if folded else entry.size_bytes


def _evidence(path: Path, levels: set[int], kv_device: str, options: Any) -> tuple[Evidence, ...]:
    told = [
        ("InferenceSession.get_provider_graph_assignment_info", "placement, node by node"),
        ("InferenceSession.get_session_options", f"{options.intra_op_num_threads} threads within an operation"),
        ("InferenceSession.get_input_memory_infos", f"KV cache float32 in {kv_device} memory, past is present"),
        (path.name, "weights as its initializers declare them, " + PACKED_COPY),
        (path.name, f"accuracy_level {', '.join(map(str, sorted(levels)))}" if levels else "float32 products"),
    ]
    flags = [flag for flag in ISA_FLAGS if flag in _cpu_flags()]
    if flags:
        told.append(("/proc/cpuinfo", "instruction sets that the kernels choose from: " + " ".join(flags)))
    return tuple(Evidence(source=source, claim=claim) for source, claim in told)


def _cpu_flags() -> set[str]:
    info = providers.cpu_info()
    return set((info.get("flags") or info.get("Features") or "").split())
