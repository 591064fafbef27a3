"""Bytes moved through a device's own memory, for the harness to time."""

from __future__ import annotations

import torch

from backends.pytorch import devices
from backends.pytorch.kinds import Kind

BYTES = 512 << 20
"""Of one of the two buffers: many times the caches of any device so far."""


class Copier:
    """Copies a buffer to another in the memory of the device `asked` for; the caller holds the clock."""

    def __init__(self, kind: Kind, asked: str | None):
        self._device = devices.chosen(kind, asked)
        devices.settle(kind, self._device)
        self.kind = devices.present(kind)[self._device.index or 0].kind
        self.moved_bytes = 2 * BYTES
        self._from, self._to = (torch.ones(BYTES // 4, device=self._device) for _ in range(2))

    def move(self) -> None:
        """One copy, finished on return."""
        self._to.copy_(self._from)
        devices.wait(self._device)

    def close(self) -> None:
        """Hand the memory back, not to torch's cache alone."""
        del self._from, self._to
        devices.hand_back(self._device)
