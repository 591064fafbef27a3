"""llama_batch over arrays of ours: filled without a call for each token."""

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

    def fill(self, token_ids: Any, start: int, every: bool) -> None:
        """Sequence r continues at position `start` with `token_ids[r]`; logits of all tokens, or of each last one."""
        ids: npt.NDArray[np.int32] = np.asarray(token_ids, np.int32)
        rows, count = ids.shape
        size = rows * count
        self._tokens[:size] = ids.reshape(-1)
        self._positions[:size].reshape(rows, count)[:] = np.arange(start, start + count)
        self._wanted[:size] = every
        self._wanted[:size].reshape(rows, count)[:, -1] = 1
        self._row_of[:size].reshape(rows, count)[:] = (
            self._rows.ctypes.data + 4 * np.arange(rows, dtype=np.uintp)[:, None]
        )
        self.struct.n_tokens = size
