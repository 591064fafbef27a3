"""llama_batch over arrays of ours: filled without a call for each token, and hardly touched from step to step.

After each decode step the processor's caches hold weights and no Python: what is done here is done cold, every time.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt


class Batch:
    """Room for `size` tokens of any number of sequences, each token in one."""

    def __init__(self, size: int):
        from llama_cpp.llama_cpp import llama_batch

        self._tokens, self._positions = np.zeros(size, np.int32), np.zeros(size, np.int32)
        self._wanted, self._counts = np.zeros(size, np.int8), np.ones(size, np.int32)
        self._rows = np.arange(size, dtype=np.int32)
        self._row_of = np.zeros(size, np.uintp)
        self._shape: tuple[int, int, bool] | None = None
        self.struct = llama_batch()
        given: dict[str, npt.NDArray[Any]] = {
            "token": self._tokens,
            "pos": self._positions,
            "logits": self._wanted,
            "n_seq_id": self._counts,
            "seq_id": self._row_of,
        }
        for name, array in given.items():
            setattr(self.struct, name, ctypes.cast(array.ctypes.data, type(getattr(self.struct, name))))
        self._token: Any = self.struct.token
        self._position: Any = self.struct.pos

    def fill(self, token_ids: npt.NDArray[np.int32], start: int, every: bool) -> None:
        """Sequence r continues at position `start` with `token_ids[r]`; logits of all tokens, or of each last one."""
        rows, count = token_ids.shape
        if self._shape != (rows, count, every):
            self._lay_out(rows, count, every)
        self._used_tokens[...] = token_ids
        np.add(self._offsets, start, out=self._used_positions)

    def one(self, token: int, position: int) -> None:
        """One token of the first sequence, and its logits: as `fill`, with two stores."""
        if self._shape != (1, 1, False):
            self._lay_out(1, 1, False)
        self._token[0] = token
        self._position[0] = position

    def _lay_out(self, rows: int, count: int, every: bool) -> None:
        """What depends on the shape alone; seq_id points at each token's row."""
        size, shape = rows * count, (rows, count)
        self._used_tokens = self._tokens[:size].reshape(shape)
        self._used_positions = self._positions[:size].reshape(shape)
        self._offsets = np.arange(count, dtype=np.int32)
        wanted = self._wanted[:size].reshape(shape)
        wanted[...] = every
        wanted[:, -1] = 1
        numbers = np.arange(rows, dtype=np.uintp)[:, None]
        self._row_of[:size].reshape(shape)[...] = self._rows.ctypes.data + self._rows.itemsize * numbers
        self.struct.n_tokens = size
        self._shape = (rows, count, every)
