"""An accelerator that is not there: torch's processor under another name, with the functions that devices have.

What it cannot show is what only hardware has: other kernels, a memory of its own, streams.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from backends.pytorch import Torch
from backends.pytorch.kinds import KINDS, Kind

KIND = Kind(name="standin", word="cpu", label="stand-in", node="/dev/null")
NAME, UUID, TOTAL_BYTES = "Stand-in X1", "GPU-1234", 8 << 30


class StandIn(Torch):
    """Computes as every device but the processor does, in halves; decode as it comes."""

    kind = KIND


def functions(**changes: Any) -> dict[str, Any]:
    """What torch's module of a kind of device has, for two devices of which a quarter of the memory is in use."""
    return {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_device_name": lambda index: NAME,
        "get_device_properties": lambda index: SimpleNamespace(uuid=UUID, gcnArchName=""),
        "mem_get_info": lambda device: (TOTAL_BYTES * 3 // 4, TOTAL_BYTES),
        "max_memory_allocated": lambda device: 5 << 20,
        "empty_cache": lambda: None,
        **changes,
    }


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.cpu has what torch.cuda has, and torch.accelerator moves nothing."""
    import torch

    for name, function in functions(device_count=lambda: 1).items():
        monkeypatch.setattr(torch.cpu, name, function, raising=False)
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda index: None)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device=None: None)


def offer(monkeypatch: pytest.MonkeyPatch, kind: str, **changes: Any) -> Kind:
    """Let stock torch look as if it were built for `kind`, with two devices."""
    import torch

    found = KINDS[kind]
    monkeypatch.setattr(torch, found.word, SimpleNamespace(**functions(**changes)), raising=False)
    for field in ("cuda", "hip", "xpu"):
        monkeypatch.setattr(torch.version, field, "9.9" if field == found.build else None, raising=False)
    if found.extension:
        monkeypatch.setitem(__import__("sys").modules, found.extension, SimpleNamespace(__version__="1.2.3"))
    return found
