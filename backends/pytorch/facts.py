"""What a session really does: the operators that torch dispatches for a step, and the tensors that it holds."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from backends.pytorch import devices, isa, libraries
from backends.pytorch.decoder import Decoder
from backends.pytorch.kinds import CPU, Kind
from backends.pytorch.loading import HEAD, TABLE, Loaded
from bench.facts import PATH_ROWS, Activations, Compute, Evidence, PhaseFacts, Placement, SessionFacts

PROBED = "blk.0.attn_output.weight"
"""The product that tells how all layers are coded."""
MOST_ROWS = 128
"""Tokens of the prefill that is looked at."""
TYPES: dict[torch.dtype, Compute] = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
PRODUCTS = ("mm", "addmm", "bmm", "linear", "_int_mm", "_weight_int4pack_mm_for_cpu", "_weight_int8pack_mm")
ATTENTION = "scaled_dot_product"
STATUS, ROLLUP = Path("/proc/self/status"), Path("/proc/self/smaps_rollup")


@dataclass(frozen=True, slots=True)
class Here:
    """Where a session computes: its device, what the switches of numerics.py say, and decode where it is compiled.

    `decode` executes one step as the session does, which leaves nothing that a later step could see.
    """

    kind: Kind
    device: torch.device
    switches: Mapping[str, str]
    decode: Callable[[], object] | None = None


def read(loaded: Loaded, here: Here, rows: int) -> SessionFacts:
    """Effective precision and operators by phase, placement, threads and bytes.

    Executes some tokens on a cache of their own; `rows` is how many a prefill feeds at once.
    """
    rows = min(max(rows, PATH_ROWS), MOST_ROWS)
    compute = TYPES[loaded.recipe.dtype]
    decode, prefill = (_Watched(loaded, here, count) for count in (1, rows))
    arch, held = loaded.arch, loaded.held
    activations: Activations = loaded.products[PROBED].activations or compute
    cache = loaded.decoder.keys[0]
    asked = next(each for each in devices.present(here.kind) if each.index == (here.device.index or 0))
    on_cpu = here.kind is CPU
    return SessionFacts(
        weights=_weights(loaded),
        prefill=PhaseFacts(activations=activations, compute=compute, kernels=prefill.kernels),
        decode=PhaseFacts(activations=activations, compute=compute, kernels=decode.kernels),
        kv_cache=TYPES[cache.dtype],
        devices=(asked,),
        asked_placement=str(here.device),
        placement=decode.placement(),
        threads=torch.get_num_threads() if on_cpu else None,
        resident_weight_bytes=loaded.weight_bytes,
        embedding_bytes=held[TABLE].size_bytes if HEAD in held else 0,
        kv_bytes_per_token=2 * arch.layers * arch.kv_rows * cache.itemsize,
        isa=(libraries.instruction_set() or torch.backends.cpu.get_cpu_capability()) if on_cpu else None,
        evidence=tuple(Evidence(source=source, claim=claim) for source, claim in _told(loaded, here)),
    )


class _Watched(TorchDispatchMode):  # type: ignore[misc]
    """Every operator of one step of `count` tokens on a cache that holds one, and the device of what it returns.

    The same step is executed again for the kernels below torch, which only libraries and drivers can name.
    """

    def __init__(self, loaded: Loaded, here: Here, count: int):
        super().__init__()
        self._seen: Counter[tuple[str, str]] = Counter()
        decoder, device = loaded.fresh(1, 1 + count), here.device
        with torch.no_grad():  # in inference mode composed operators would be seen instead of what they call
            _step(decoder, device, 0, 1)
            with self:
                _step(decoder, device, 1, count)
        compiled = here.decode if count == 1 else None
        self._below = _below(here, compiled or (lambda: _step(decoder, device, 1, count)))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        first = out[0] if isinstance(out, tuple | list) and out else out
        if isinstance(first, torch.Tensor):
            self._seen[func.overloadpacket.__name__, str(first.device)] += 1
        return out

    @property
    def kernels(self) -> dict[str, str]:
        """By kind of work, the operators that do it; and the kernels that they call."""
        names = {name for name, _ in self._seen}
        found = {
            "matmul": sorted(names & set(PRODUCTS)),
            "attention": sorted(name for name in names if ATTENTION in name),
            "embedding": sorted(names & {"index", "index_select", "embedding"}),
        }
        told = {work: ", ".join(f"aten::{name}" for name in names) for work, names in found.items() if names}
        return told | {source: ", ".join(names) for source, names in self._below.items() if names}

    def placement(self) -> tuple[Placement, ...]:
        """Per device: operators by name, and its share of the matrix products."""
        products = sum(count for (name, _), count in self._seen.items() if name in PRODUCTS)
        found = []
        for device in sorted({device for _, device in self._seen}):
            here = {name: count for (name, at), count in self._seen.items() if at == device}
            share = sum(count for name, count in here.items() if name in PRODUCTS) / products
            found.append(Placement(device=device, matmul_share=share, operations=here))
        return tuple(found)


def _step(decoder: Decoder, device: torch.device, start: int, count: int) -> torch.Tensor:
    ids = torch.zeros((1, count), dtype=torch.int32, device=device)
    return decoder(ids, slice(start, start + count), start + count)


def _below(here: Here, work: Callable[[], object]) -> dict[str, list[str]]:
    """Kernels that torch calls for `work`: on a processor as its libraries tell, else as the profiler sees them."""
    with torch.inference_mode():
        if here.kind is not CPU:
            return {"device": libraries.profiled(work, here.device)}
        calls = libraries.listening(work).calls
    called = any(call.startswith("oneDNN") for call in calls)
    return {"libraries": calls, "generated": libraries.generated() if called else []}


def _weights(loaded: Loaded) -> str:
    """How the products' weights are coded: `int8 row`, `int4 group 32`, `f16 held as f32`."""
    held = loaded.products[PROBED].held
    if held.scales is None:
        kept = TYPES[held.numbers.dtype]
        return held.scheme if kept == held.scheme else f"{held.scheme} held as {kept}"
    return f"{held.scheme} row" if held.scales.shape[1] == 1 else f"{held.scheme} group 32"


def _told(loaded: Loaded, here: Here) -> list[tuple[str, str]]:
    """(source, claim) of everything that was read."""
    product = loaded.products[PROBED]
    rounding = f"rounds its inputs as {product.activations}" if product.activations else "takes its inputs as they come"
    told = [
        ("TorchDispatchMode", "operators of a step and the devices of what they return"),
        ("the product that is called", f"{product.name}: {rounding}"),
        ("tensors of the model", "types and bytes of weights and cache"),
        *here.switches.items(),
    ]
    if here.decode:
        told.append(
            (
                "torch.compile",
                "decode is compiled: its operators are those before they were fused, its kernels those that execute",
            )
        )
    return [*told, *(_of_the_processor() if here.kind is CPU else _of_the_device(here))]


def _of_the_device(here: Here) -> list[tuple[str, str]]:
    found = [("torch", f"{name} {version}") for name, version in devices.versions(here.kind).items()]
    return [*found, ("torch.profiler", "kernels of a step by name, as the device's driver reports them")]


def _of_the_processor() -> list[tuple[str, str]]:
    """What its kernels may use, what they were held to, and which processors and memory this process may use."""
    told = [
        ("torch.get_num_threads", f"{torch.get_num_threads()} threads within an operator"),
        ("torch.backends.cpu.get_cpu_capability", f"ATen's own kernels: {torch.backends.cpu.get_cpu_capability()}"),
        ("torch.cpu.get_capabilities", f"the processor: {', '.join(_capabilities()) or 'not told'}"),
    ]
    if name := libraries.instruction_set():
        told.append(("oneDNN verbose", f"its kernels may use {name}"))
    if version := libraries.mkl():
        told.append(("MKL verbose", version))
    if libraries.generated():
        told.append(("oneDNN's list for perf", "matrix kernels that were generated in this process"))
    if "amx_tile" in isa.flags() and (permitted := libraries.tiles_permitted()) is not None:
        told.append(
            ("arch_prctl", f"the kernel {'lets' if permitted else 'does not let'} this process use AMX's tiles")
        )
    told += [("environment", f"{name}={os.environ[name]}") for name in isa.TOLD if name in os.environ]
    told += [("/proc/self/smaps_rollup", line) for line in _lines(ROLLUP, "AnonHugePages")]
    return told + [("/proc/self/status", line) for line in _lines(STATUS, "Cpus_allowed_list", "Mems_allowed_list")]


def _capabilities() -> list[str]:
    """Instruction sets of the processor as torch sees them, those that matter here."""
    tell = getattr(torch.cpu, "get_capabilities", None)  # since torch 2.11
    found = tell() if tell else {}
    return sorted(name for name, has in found.items() if has is True and name.startswith(("avx", "amx", "sve", "sme")))


def _lines(path: Path, *names: str) -> list[str]:
    """What Linux tells of this process: processors and memory nodes that it may use, memory in huge pages."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    return [" ".join(line.split()) for line in lines if line.startswith(names)]
