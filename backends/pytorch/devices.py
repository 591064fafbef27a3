"""The processor as a device, and how many of its threads torch uses."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from bench.errors import PrerequisiteError
from bench.types import Device

CPU = "cpu"
_THREADS = torch.get_num_threads()
"""torch's own choice, before any session has changed it."""


def present() -> tuple[Device, ...]:
    return (Device(kind=CPU, name=_processor()),)


def chosen(asked: str | None) -> torch.device:
    """The device `asked` for, the processor where none is; PrerequisiteError for any other."""
    if (asked or CPU).lower() != CPU:
        raise PrerequisiteError(
            f"there is no device {asked!r}",
            where="backend cpu",
            cause="it computes on the processor",
            remedy="--device cpu",
        )
    return torch.device(CPU)


def use_threads(count: int | None) -> None:
    """So many from now on in this process; None: as many as torch takes by itself."""
    torch.set_num_threads(count or _THREADS)


def _processor() -> str:
    """As the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
