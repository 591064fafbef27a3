"""Models small enough to write and compute in milliseconds."""

from __future__ import annotations

from typing import Any

from bench.types import Arch, RopeScaling

LLAMA3_SCALING = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=64)
"""With 32 numbers a head and theta 1e4 some frequencies are kept, some blended and some divided by 8."""


def tiny_arch(family: str = "llama", **changes: Any) -> Arch:
    """Two layers of 96; any number can be changed."""
    numbers: dict[str, Any] = {
        "family": family,
        "layers": 2,
        "hidden": 96,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 32,
        "ffn": 160,
        "vocab": 300,
        "context": 512,
        "rope_theta": 1e4,
        "norm_eps": 1e-5,
        "tied": False,
    }
    return Arch(**{**numbers, **changes})
