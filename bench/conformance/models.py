"""The small models that adapters are checked with: every family, tied and untied, with and without rope scaling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

from bench.types import Arch, Fidelity, RopeScaling

CAPACITY = 64
"""Positions of the KV cache in most checks."""
POSITIONS = 32
DECODED = 8
"""Positions at the end of those that are fed one by one."""
LONG_POSITIONS = 2048
LONG_CAPACITY = 2304

_LLAMA = Arch(
    family="llama",
    layers=3,
    hidden=256,
    heads=8,
    kv_heads=2,
    head_dim=32,
    ffn=352,
    vocab=1024,
    context=8192,
    rope_theta=10_000.0,
    norm_eps=1e-5,
    tied=False,
)
_LLAMA3 = replace(
    _LLAMA,
    rope_theta=500_000.0,
    rope_scaling=RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=64),
)
_QWEN2 = replace(_LLAMA, family="qwen2", norm_eps=1e-6)
_QWEN3 = replace(_LLAMA, family="qwen3", head_dim=64, rope_theta=1e6, norm_eps=1e-6)
_UNTIED = {"llama": _LLAMA, "llama3": _LLAMA3, "qwen2": _QWEN2, "qwen3": _QWEN3}

ARCHS: Mapping[str, Arch] = {
    **_UNTIED,
    **{f"{name}-tied": replace(arch, tied=True) for name, arch in _UNTIED.items()},
    "llama3-long": replace(
        _LLAMA3,
        layers=2,
        rope_scaling=RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=512),
    ),
}
"""By name. The long one's scaling starts where the gate's 32 positions see little of it."""

SCHEMES = ("int8", "int4", "fp16", "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What one check is executed with; hashable, and short as text."""

    model: str = "qwen2"
    scheme: str = "int8"
    fidelity: Fidelity = "exact"
    batch: int = 1
    capacity: int = CAPACITY

    def __str__(self) -> str:
        return f"{self.model}-{self.scheme}-{self.fidelity}" + (f"-x{self.batch}" if self.batch > 1 else "")


def matrix(fidelity: Fidelity) -> tuple[Variant, ...]:
    """Every family, tied and untied, in every scheme, alone and in a batch."""
    names = [name for name in ARCHS if not name.endswith("-long")]
    return tuple(
        Variant(model=model, scheme=scheme, fidelity=fidelity, batch=batch)
        for model, scheme, batch in product(names, SCHEMES, (1, 4))
    )


def both(batch: int = 1) -> tuple[Variant, ...]:
    """The model that most checks use, exact and native."""
    return Variant(fidelity="exact", batch=batch), Variant(fidelity="native", batch=batch)
