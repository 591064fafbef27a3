"""What a session really does, read from the graphs that llama.cpp builds and from the products in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from backends.llamacpp import devices, rounding, tensors
from backends.llamacpp.graph import BOOKKEEPING, Node, Seen, watched
from backends.llamacpp.model import Context, Model
from backends.llamacpp.tensors import REPACKED, Tensor
from bench.facts import PATH_ROWS, Activations, Evidence, PhaseFacts, Placement, SessionFacts
from bench.types import Arch, Device

PROBED = "blk.0.attn_output.weight"
"""The product whose rounding is looked at: every family has it, and it is coded as all layers are."""
MOST_ROWS = {True: 512, False: 64}
"""Tokens of the prefill that is looked at, with and without a GPU: the CPU's kernels change at 8 rows at the latest."""
FUSED = "FLASH_ATTN_EXT"
F16 = 1
"""ggml's number of the type."""
TILE = 64
"""Queries that make a tile on the CPU (GGML_FA_TILE_Q)."""
ISA = ("AMX_INT8", "AVX512_BF16", "AVX512_VNNI", "AVX512", "AVX_VNNI", "AVX2", "AVX", "SVE", "MATMUL_INT8", "DOTPROD")
"""As llama.cpp calls them, the most capable first."""
TYPE_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}
Q8_K = ("iq1", "iq2", "iq3", "iq4_xs", "tq")
"""Beginnings of the types, beside all that end in _K, whose products take inputs of one scale per 256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What was read: the facts, the weights by name as the library holds them, and bytes by device."""

    facts: SessionFacts
    weights: Mapping[str, Tensor]
    weight_bytes: Mapping[str, int]
    cache_device: str


def read(model: Model, context: Context, arch: Arch, rows: int) -> Told:
    """Executes some tokens in a context of its own; `rows` is how many a prefill feeds at once to a sequence."""
    offloads = any(each.kind == "gpu" for each in model.devices)
    counts = sorted({1, PATH_ROWS, min(max(rows, PATH_ROWS), MOST_ROWS[offloads], context.n_ubatch)})
    seen: dict[int, Seen] = {}
    with watched(model, 1 + sum(counts), PROBED) as steps:
        steps.step([0])  # what executes on an empty cache may be another graph
        for count in counts:
            seen[count] = steps.step([0] * min(count, context.n_ubatch))  # one graph
    weights = _weights(seen.values())
    probed = weights.get(PROBED) or next(node.weights[0] for node in seen[1].nodes if node.multiplies)
    found = {count: _rounding(model, arch, step, probed) for count, step in seen.items()}
    phases = {count: _phase(model, found[count], seen[count].nodes) for count in counts}
    cached = _cached(seen[1].nodes)
    kv = {model.lib.ggml_type_name(each.kind).decode() for each in cached}
    placement = _placement(seen[counts[-1]].nodes, model)
    held = _held(model, weights)
    looked_up = _looked_up(seen[1].nodes, weights)
    facts = SessionFacts(
        weights=_coded(model, probed),
        prefill=phases[counts[-1]],
        path=phases[PATH_ROWS] if phases[PATH_ROWS] != phases[counts[-1]] else None,
        decode=phases[1],
        kv_cache="/".join(sorted(kv)),
        devices=_devices(model, placement),
        asked_placement=_asked(model, placement),
        placement=_together(model, placement),
        threads=model.lib.api.llama_n_threads(context.at),
        resident_weight_bytes=sum(held.values()),
        embedding_bytes=sum(model.lib.ggml_nbytes(each.at) for each in looked_up),
        kv_bytes_per_token=_kv_bytes(arch, kv),
        isa=_isa(model.lib.features()),
        evidence=tuple(_evidence(model, context, found, cached)),
    )
    by_device: Counter[str] = Counter()
    for name, size in held.items():
        by_device[weights[name].device] += size
    return Told(facts=facts, weights=weights, weight_bytes=by_device, cache_device=cached[0].device)


def heads_of(arch: Arch, name: str) -> int | None:
    """Heads whose rows the file keeps in pairs; None for every other tensor."""
    if arch.family != "llama":
        return None
    return {"attn_q": arch.heads, "attn_k": arch.kv_heads}.get(name.removesuffix(".weight").rpartition(".")[2])


def _weights(seen: Iterable[Seen]) -> dict[str, Tensor]:
    """By name; of a table that is looked up and multiplied with, the one that is multiplied with."""
    nodes = [node for step in seen for node in step.nodes]
    ordered = sorted(nodes, key=lambda node: node.multiplies)
    return {weight.name: weight for node in ordered for weight in node.weights}


def _rounding(model: Model, arch: Arch, step: Seen, weight: Tensor) -> Activations:
    """As the product in the graph answers; where that is not clear, as ggml pairs the weight's type."""
    codes = tensors.codes(model.lib, weight, heads_of(arch, weight.name))
    found = rounding.found(step.product, codes) if step.product and codes else None
    return found or paired(model.lib.ggml_type_name(weight.kind).decode())


def paired(kind: str) -> Activations:
    """What ggml's CPU rounds inputs to for weights of a type (type_traits_cpu): as they are, or Q8_K, or Q8_0."""
    if kind in ("f32", "f16", "bf16"):
        return cast(Activations, kind)
    return "a8-g256" if kind.endswith("_K") or kind.startswith(Q8_K) else "a8-g32"


def _phase(model: Model, found: Activations, nodes: Sequence[Node]) -> PhaseFacts:
    fused = next((node for node in nodes if node.operation == FUSED), None)
    return PhaseFacts(
        activations=found,
        compute="f32",
        kernels=dict(_kernels(model, nodes)),
        attention_sums="f16" if fused and _sums_f16(fused) else None,
    )


def _sums_f16(fused: Node) -> bool:
    """Whether a fused attention adds up in float16: on the CPU, but where many queries make a tile (ops.cpp)."""
    query, key, value = fused.inputs[:3]
    tiled = query.shape[-2] >= TILE and key.kind == value.kind
    return fused.result.device == devices.CPU and value.kind == F16 and not tiled


def _kernels(model: Model, nodes: Sequence[Node]) -> Iterator[tuple[str, str]]:
    """What does the products, the attention and the look-up, each as ggml calls it."""
    name = model.lib.ggml_type_name
    products = Counter(
        f"{node.operation} {name(node.weights[0].kind).decode()} in {node.weights[0].buffer}"
        for node in nodes
        if node.multiplies
    )
    yield "matmul", ", ".join(f"{kind} ×{count}" for kind, count in products.most_common())
    fused = any(node.operation == FUSED for node in nodes)
    yield "attention", FUSED if fused else "MUL_MAT, SOFT_MAX, MUL_MAT"
    table = next((n for n in nodes if n.operation == "GET_ROWS" and n.weights), None)
    if table is not None:
        yield "embedding", f"GET_ROWS {name(table.weights[0].kind).decode()} in {table.weights[0].buffer}"


def _cached(nodes: Sequence[Node]) -> list[Tensor]:
    """What keys and values are written into."""
    return [node.result for node in nodes if node.operation == "SET_ROWS" and node.result.name.startswith("cache_")]


def _placement(nodes: Sequence[Node], model: Model) -> dict[str, tuple[float, Counter[str]]]:
    """By device: elements of weights multiplied there, and the operations that compute."""
    elements: Counter[str] = Counter()
    operations: dict[str, Counter[str]] = {}
    for node in nodes:
        if node.operation not in BOOKKEEPING:
            operations.setdefault(node.result.device, Counter())[node.operation] += 1
        if node.multiplies:
            rows, columns = node.weights[0].shape[-2:]
            elements[node.result.device] += rows * columns
    total = sum(elements.values())
    return {device: (elements[device] / total, counted) for device, counted in operations.items()}


def _asked(model: Model, placement: Mapping[str, object]) -> str:
    """All devices asked for; the CPU with them only where an option keeps something there and it does compute."""
    names = [each.name for each in model.devices]
    options = model.options
    kept = (
        options["n_gpu_layers"] >= 0 or options["no_kv_offload"] or options["n_cpu_moe"] or options["override_tensor"]
    )
    return "+".join(
        [*names, *([devices.CPU] if kept and devices.CPU in placement and devices.CPU not in names else [])]
    )


def _together(model: Model, placement: Mapping[str, tuple[float, Counter[str]]]) -> tuple[Placement, ...]:
    """One entry for what was asked for as one; else one a device."""
    asked = _asked(model, placement)
    if set(placement) == set(asked.split("+")):
        operations = sum((counted for _, counted in placement.values()), Counter[str]())
        return (Placement(device=asked, matmul_share=1.0, operations=dict(operations)),)
    return tuple(
        Placement(device=name, matmul_share=share, operations=dict(counted))
        for name, (share, counted) in placement.items()
    )


def _devices(model: Model, placement: Mapping[str, object]) -> tuple[Device, ...]:
    here = devices.present(model.lib)
    return tuple(each.told(index) for index, each in enumerate(here) if each.name in placement)


def _held(model: Model, weights: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: model.lib.ggml_nbytes(each.at) for name, each in weights.items()}


def _looked_up(nodes: Sequence[Node], weights: Mapping[str, Tensor]) -> list[Tensor]:
    """Tables that rows are taken from and nothing is multiplied with."""
    multiplied = {weight.name for node in nodes if node.multiplies for weight in node.weights}
    tables = {w.name: w for node in nodes if node.operation == "GET_ROWS" for w in node.weights}
    return [table for name, table in tables.items() if name not in multiplied]


def _coded(model: Model, weight: Tensor) -> str:
    kind = model.lib.ggml_type_name(weight.kind).decode()
    grouped = f"{kind} group 32" if kind in ("q8_0", "q4_0") else kind
    return grouped + (", re-ordered" if weight.buffer == REPACKED else "")


def _kv_bytes(arch: Arch, kinds: set[str]) -> int | None:
    """Of keys and values of one token in all layers; None for a type whose size is not known here."""
    sizes = [TYPE_BYTES[kind] for kind in kinds if kind in TYPE_BYTES]
    if len(sizes) != len(kinds):
        return None
    return int(2 * arch.layers * arch.kv_rows * sum(sizes) / len(sizes))


def _isa(features: str) -> str | None:
    have = set(re.findall(r"(\w+) = 1", features))
    return next((name for name in ISA if name in have), None)


def _evidence(
    model: Model, context: Context, found: Mapping[int, Activations], cached: Sequence[Tensor]
) -> Iterator[Evidence]:
    rows = ", ".join(f"{name} at {count} rows" for count, name in sorted(found.items()))
    yield Evidence(source=f"inputs and outputs of the product with {PROBED}", claim=f"rounds its inputs as {rows}")
    yield Evidence(source="llama_context_params.cb_eval", claim="operations, types and buffers of every node executed")
    yield Evidence(source="llama_print_system_info", claim=model.lib.features())
    yield Evidence(source="llama_n_threads, llama_n_threads_batch", claim=_threads(model, context))
    if model.exact:
        yield Evidence(source="llama_model_init_from_user", claim="every weight of the file widened to float32")
    for line in (*model.log, *context.log):
        if "buffer size" in line or "offloaded" in line:
            yield Evidence(source="llama.cpp's log", claim=" ".join(line.split()))


def _threads(model: Model, context: Context) -> str:
    api = model.lib.api
    return f"{api.llama_n_threads(context.at)} for decode steps, {api.llama_n_threads_batch(context.at)} for prefills"
