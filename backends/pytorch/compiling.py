"""Decode as one compiled step: torch.compile fuses the widening of codes into the products; a GPU replays it whole.

What is compiled once for all positions reads the whole cache and masks what is not filled, as gpt-fast does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import torch
from torch import Tensor

from backends.pytorch.kinds import CPU, Kind
from backends.pytorch.loading import Loaded
from bench.errors import PrerequisiteError
from bench.types import Case

OPTION = "compile"
Step = Callable[[Tensor, Tensor, int], Tensor]


def wanted(kind: Kind, case: Case) -> bool:
    """Whether decode is compiled: as asked for, else where stock torch.compile knows the device. Never for `exact`."""
    asked = case.options.get(OPTION)
    return case.fidelity == "native" and (kind.compiled if asked is None else bool(asked))


def compiled(kind: Kind, loaded: Loaded, case: Case) -> Step | None:
    """Decode for `case`, compiled at its first step; None where it is not wanted. Nothing falls back to less."""
    if not wanted(kind, case):
        return None
    if kind.compiled and find_spec("triton") is None:
        raise PrerequisiteError(
            "torch.compile needs triton, which is not installed",
            where=f"backend {kind.name}",
            remedy="install the triton of this torch, or --set compile=off",
        )
    torch.compiler.reset()  # it counts how often a function is compiled, and refuses the ninth decoder of a process
    for tensor in _kept(loaded):
        torch._dynamo.mark_static_address(tensor)  # else a replayed graph would copy the cache and all weights first
    step: Step = torch.compile(loaded.decoder.__call__, fullgraph=True, dynamic=False, options=_options(kind))
    return step


def _options(kind: Kind) -> dict[str, bool]:
    """Rounding as without compiling: what is fused would else keep float32 where the class says half precision."""
    wanted = {"emulate_precision_casts": True}
    if kind is not CPU:
        wanted["coordinate_descent_tuning"] = True
    if kind.word == "cuda":
        wanted["triton.cudagraphs"] = True
    known = torch._inductor.list_options()
    return {name: value for name, value in wanted.items() if name in known}


def _kept(loaded: Loaded) -> Iterator[Tensor]:
    """What stays where it is between steps: the cache, the weights, and what products made of them."""
    yield from (*loaded.decoder.keys, *loaded.decoder.values)
    for held in loaded.held.values():
        yield from (tensor for tensor in (held.numbers, held.scales) if tensor is not None)
    for product in loaded.products.values():
        yield from (tensor for tensor in vars(product).values() if isinstance(tensor, Tensor))
