"""What a session really does: the operators that torch dispatches for a step, and the tensors that it holds."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from backends.pytorch import devices
from backends.pytorch.loading import HEAD, TABLE, Loaded
from bench.facts import PATH_ROWS, Activations, Compute, Evidence, PhaseFacts, Placement, SessionFacts

PROBED = "blk.0.attn_output.weight"
"""The product that tells how all layers are coded."""
MOST_ROWS = 128
"""Tokens of the prefill that is looked at."""
TYPES: dict[torch.dtype, Compute] = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
PRODUCTS = ("mm", "addmm", "bmm", "linear", "_int_mm")
ATTENTION = "scaled_dot_product"


def read(loaded: Loaded, rows: int) -> SessionFacts:
    """Effective precision and operators by phase, placement, threads and bytes.

    Executes some tokens on a cache of their own; `rows` is how many a prefill feeds at once.
    """
    rows = min(max(rows, PATH_ROWS), MOST_ROWS)
    compute = TYPES[loaded.recipe.dtype]
    decode, prefill = (_Watched(loaded, count) for count in (1, rows))
    arch, held = loaded.arch, loaded.held
    activations: Activations = loaded.products[PROBED].activations or compute
    cache = loaded.decoder.keys[0]
    return SessionFacts(
        weights=_weights(loaded),
        prefill=PhaseFacts(activations=activations, compute=compute, kernels=prefill.kernels),
        decode=PhaseFacts(activations=activations, compute=compute, kernels=decode.kernels),
        kv_cache=TYPES[cache.dtype],
        devices=devices.present(),
        asked_placement=devices.CPU,
        placement=decode.placement(),
        threads=torch.get_num_threads(),
        resident_weight_bytes=loaded.weight_bytes,
        embedding_bytes=held[TABLE].size_bytes if HEAD in held else 0,
        kv_bytes_per_token=2 * arch.layers * arch.kv_rows * cache.itemsize,
        isa=torch.backends.cpu.get_cpu_capability(),
        evidence=_evidence(loaded),
    )


class _Watched(TorchDispatchMode):  # type: ignore[misc]
    """Every operator of one step of `count` tokens on a cache that holds one, and the device of what it returns."""

    def __init__(self, loaded: Loaded, count: int):
        super().__init__()
        self._seen: Counter[tuple[str, str]] = Counter()
        decoder = loaded.fresh(1, 1 + count)
        device = decoder.keys[0].device
        with torch.no_grad():  # in inference mode composed operators would be seen instead of what they call
            decoder(torch.zeros((1, 1), dtype=torch.int32, device=device), 0)
            with self:
                decoder(torch.zeros((1, count), dtype=torch.int32, device=device), 1)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        first = out[0] if isinstance(out, tuple | list) and out else out
        if isinstance(first, torch.Tensor):
            self._seen[func.overloadpacket.__name__, str(first.device)] += 1
        return out

    @property
    def kernels(self) -> dict[str, str]:
        """By kind of work, the operators that do it."""
        names = {name for name, _ in self._seen}
        found = {
            "matmul": sorted(names & set(PRODUCTS)),
            "attention": sorted(name for name in names if ATTENTION in name),
            "embedding": sorted(names & {"index", "index_select", "embedding"}),
        }
        return {work: ", ".join(f"aten::{name}" for name in names) for work, names in found.items() if names}

    def placement(self) -> tuple[Placement, ...]:
        """Per device: operators by name, and its share of the matrix products."""
        products = sum(count for (name, _), count in self._seen.items() if name in PRODUCTS)
        found = []
        for device in sorted({device for _, device in self._seen}):
            here = {name: count for (name, at), count in self._seen.items() if at == device}
            share = sum(count for name, count in here.items() if name in PRODUCTS) / products
            found.append(Placement(device=device, matmul_share=share, operations=here))
        return tuple(found)


def _weights(loaded: Loaded) -> str:
    """How the products' weights are coded: `int8 row`, `int4 group 32`, `f16 held as f32`."""
    held = loaded.products[PROBED].held
    if held.scales is None:
        kept = TYPES[held.numbers.dtype]
        return held.scheme if kept == held.scheme else f"{held.scheme} held as {kept}"
    return f"{held.scheme} row" if held.scales.shape[1] == 1 else f"{held.scheme} group 32"


def _evidence(loaded: Loaded) -> tuple[Evidence, ...]:
    product = loaded.products[PROBED]
    rounding = f"rounds its inputs as {product.activations}" if product.activations else "takes its inputs as they come"
    told = [
        ("TorchDispatchMode", "operators of a step and the devices of what they return"),
        ("the product that is called", f"{product.name}: {rounding}"),
        ("tensors of the model", "types and bytes of weights and cache"),
        ("torch.get_num_threads", f"{torch.get_num_threads()} threads within an operator"),
        (
            "torch.backends.cpu.get_cpu_capability",
            "instruction set of ATen's own kernels; oneDNN, which multiplies, chooses its own",
        ),
    ]
    return tuple(Evidence(source=source, claim=claim) for source, claim in told)
