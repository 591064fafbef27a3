"""What a session really does: read from the runtime and from the graph that it loaded, and asked of the provider."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import onnx

from backends.onnx import graph, held, providers, rounding
from backends.onnx.known import CPU
from backends.onnx.loading import Loaded
from backends.onnx.rounding import Rounding
from backends.onnx.weights import SCALES, TABLE
from bench.facts import PATH_ROWS, Evidence, PhaseFacts, Placement, SessionFacts

ISA_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm", "sve")
WORK = {
    "matmul": ("MatMulNBits", "FusedMatMul", "MatMul"),
    "attention": ("GroupQueryAttention", "Softmax"),
    "embedding": ("GatherBlockQuantized", "Gather"),
}
"""Operators that do each kind of work; of several the first that the graph has."""


def facts(loaded: Loaded) -> SessionFacts:
    """Effective precision, placement, threads and resident bytes of a model that was loaded."""
    model = graph.load(loaded.path)
    placement = _placement(loaded, model)
    counts = (1, *loaded.prompts) if loaded.prompts else (1, PATH_ROWS, loaded.prompt_rows)
    found = rounding.probe(loaded, model, counts)
    kernels = _kernels(model, placement)
    phases = {count: replace(_phase(found[count], loaded, model), kernels=kernels) for count in counts}
    prompt, path = phases[loaded.prompt_rows], phases.get(PATH_ROWS)
    on_cpu = {place.device for place in placement if place.matmul_share} == {CPU}
    resident = held.resident_bytes(loaded, model, rounded=phases[1].activations.startswith("a8"))
    table = [name for name in (TABLE, TABLE + SCALES) if name in resident]
    options = loaded.decode.get_session_options()
    kv_cache = "f16" if loaded.halved else "f32"
    return SessionFacts(
        weights=held.weights(loaded, model, on_cpu),
        prefill=prompt,
        decode=phases[1],
        path=path if path and path != prompt else None,
        kv_cache=kv_cache,
        devices=(loaded.device,),
        asked_placement=loaded.provider,
        placement=placement,
        threads=options.intra_op_num_threads,
        resident_weight_bytes=sum(resident.values()) if on_cpu else None,
        embedding_bytes=sum(resident[name] for name in table) if on_cpu else None,
        kv_bytes_per_token=2 * loaded.arch.layers * loaded.arch.kv_rows * (2 if loaded.halved else 4),
        evidence=_evidence(loaded, model, found, options, kv_cache),
    )


def _placement(loaded: Loaded, model: onnx.ModelProto) -> tuple[Placement, ...]:
    """Per provider: operations by kind, and the share of the multiplications of a token at a full cache."""
    work = graph.multiply_adds(model, loaded.arch, loaded.capacity)
    operations: dict[str, Counter[str]] = {}
    share: Counter[str] = Counter()
    for session in (loaded.decode, *loaded.prompts.values()):
        for subgraph in session.get_provider_graph_assignment_info():
            kinds = operations.setdefault(subgraph.ep_name, Counter())
            for node in subgraph.get_nodes():
                kinds[node.op_type] += 1
                share[subgraph.ep_name] += work.get(node.name, 0)
    total = sum(work.values()) * (1 + len(loaded.prompts))
    return tuple(
        Placement(device=name, matmul_share=share[name] / total, operations=dict(kinds))
        for name, kinds in operations.items()
    )


def _phase(found: Rounding | None, loaded: Loaded, model: onnx.ModelProto) -> PhaseFacts:
    """As a class of errors; where nothing was found, as the graph is written."""
    if found is None:
        rounds = graph.accuracy_levels(model) == {4}
        written = PhaseFacts(activations="a8-g32" if rounds else "f32", compute="f32")
        return replace(written, activations="f16", product_results="f16") if loaded.halved else written
    if found.inputs.startswith("a8") or found.inputs == "f32" or found.others == found.inputs:
        return PhaseFacts(activations=found.inputs, compute=found.arithmetic)
    phase = PhaseFacts(activations=found.inputs, compute="f32")
    return replace(phase, product_results="f16") if found.results == "f16" else phase


def _kernels(model: onnx.ModelProto, placement: tuple[Placement, ...]) -> dict[str, str]:
    """The operator of each kind of work, as the graph has it, and the provider that most of it was given to."""
    kinds = {node.op_type for node in model.graph.node}
    named = {}
    for work, operators in WORK.items():
        operator = next(op for op in operators if op in kinds)
        _, device = max(((place.operations.get(operator, 0), place.device) for place in placement), default=(0, "?"))
        named[work] = f"{operator} on {device}"
    return named


def _evidence(
    loaded: Loaded, model: onnx.ModelProto, found: Mapping[int, Rounding | None], options: Any, kv_cache: str
) -> tuple[Evidence, ...]:
    rows = ", ".join(f"{_told(way)} at {count} rows" for count, way in sorted(found.items()))
    told = [
        ("InferenceSession.get_provider_graph_assignment_info", "placement, node by node, before a provider fuses"),
        ("InferenceSession.get_session_options", f"{options.intra_op_num_threads} threads within an operation"),
        (
            "InferenceSession.get_input_memory_infos",
            f"KV cache {kv_cache} in {loaded.memory.told}; past is present",
        ),
        (f"a product of {rounding.PROBED} alone, on this provider with these options", f"rounds as {rows}"),
        (loaded.path.name, f"dialect {loaded.dialect}, {held.declared(model)}"),
    ]
    if loaded.prompts:
        sizes = ", ".join(map(str, (1, *loaded.prompts)))
        told.append(("sessions", f"shapes are fixed, for steps of {sizes} tokens; weights are counted once"))
    flags = [flag for flag in ISA_FLAGS if flag in _cpu_flags()]
    if flags:
        told.append(("/proc/cpuinfo", "instruction sets that the kernels choose from: " + " ".join(flags)))
    return (*loaded.opened.evidence, *(Evidence(source=source, claim=claim) for source, claim in told))


def _told(way: Rounding | None) -> str:
    if way is None:
        return "none that is clear"
    return way.inputs if way.arithmetic == way.inputs else f"{way.inputs} of {way.arithmetic}"


def _cpu_flags() -> set[str]:
    info = providers.cpu_info()
    return set((info.get("flags") or info.get("Features") or "").split())
