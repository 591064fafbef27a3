"""The exact model: the same file with every weight as float32, filled in by us.

ggml rounds the inputs of a product with 8-bit weights to 8 bits, and there is no switch against it. A product with
float32 weights rounds nothing. llama.cpp builds its graph from the same metadata either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.llamacpp.library import GgufInit, Library
from backends.llamacpp.tensors import STORED, stored_width, tensor_at
from bench.api import Codes, row_ranges
from bench.errors import CaseError
from bench.types import Float32

F32 = 0
TEXT = 8
"""ggml's numbers of a type of tensors and of a type of metadata."""
DAMAGED = "`bench cache verify` finds damaged files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Where a tensor of the file lies, and ggml's number of its type."""

    kind: int
    offset: int
    size: int


class Metadata:
    """A GGUF's metadata in the library's memory, its layers cut and its types set to float32."""

    def __init__(self, lib: Library, path: Path, layers: int):
        self._lib = lib
        self.at = lib.gguf_init_from_file(str(path).encode(), GgufInit(True, None))
        key = lib.gguf_find_key(self.at, b"general.architecture") if self.at else -1
        if key < 0 or lib.gguf_get_kv_type(self.at, key) != TEXT:
            self.close()
            cause = "; ".join(lib.log.last(2)) or None
            raise CaseError("no GGUF of a model", phase="open", where=str(path), cause=cause, remedy=DAMAGED)
        family = lib.gguf_get_val_str(self.at, key).decode(errors="replace")
        lib.gguf_set_val_u32(self.at, f"{family}.block_count".encode(), layers)
        start = lib.gguf_get_data_offset(self.at)
        self.stored: dict[str, Stored] = {}
        for index in range(lib.gguf_get_n_tensors(self.at)):
            name = lib.gguf_get_tensor_name(self.at, index)
            self.stored[name.decode(errors="surrogateescape")] = Stored(
                kind=lib.gguf_get_tensor_type(self.at, index),
                offset=start + lib.gguf_get_tensor_offset(self.at, index),
                size=lib.gguf_get_tensor_size(self.at, index),
            )
        # sizes are those of the file, so types change only once all are read
        for name_ in self.stored:
            lib.gguf_set_tensor_type(self.at, name_.encode(errors="surrogateescape"), F32)

    def close(self) -> None:
        if self.at:
            self._lib.gguf_free(self.at)
        self.at = None


def load(lib: Library, path: Path, layers: int, params: Any) -> int | None:
    """A llama_model of the first `layers` layers of `path`, in float32; None where llama.cpp says no."""
    metadata = Metadata(lib, path, layers)
    filler = _Filler(lib, path, metadata.stored)
    try:
        model: int | None = lib.api.llama_model_init_from_user(metadata.at, filler.callback, None, params)
    finally:
        metadata.close()
    if filler.error is not None:
        if model:
            lib.api.llama_model_free(model)
        raise filler.error
    return model


class _Filler:
    """Called by the library for every tensor that it has made room for."""

    def __init__(self, lib: Library, path: Path, stored: Mapping[str, Stored]):
        self._lib, self._path, self._stored = lib, path, stored
        self._file: npt.NDArray[np.uint8] = np.memmap(path, np.uint8, mode="r")
        self.error: Exception | None = None
        self.callback = lib.api.llama_model_set_tensor_data_t(self._fill)

    def _fill(self, at: int, _: Any) -> None:
        try:  # an exception cannot pass through the library
            tensor = tensor_at(self._lib, at)
            columns = tensor.shape[-1]
            rows = int(np.prod(tensor.shape)) // columns
            for start, stop in row_ranges(rows, 4 * columns):
                values = np.ascontiguousarray(self._values(tensor.name, rows, columns, start, stop))
                self._lib.ggml_backend_tensor_set(at, values.ctypes.data, 4 * columns * start, values.nbytes)
        except Exception as error:
            self.error = self.error or error

    def _values(self, name: str, rows: int, columns: int, start: int, stop: int) -> Float32:
        """Rows of a tensor; llama.cpp also asks for optional ones that the file does not have."""
        if name == "output.weight" and name not in self._stored:
            name = "token_embd.weight"
        if (stored := self._stored.get(name)) is not None:
            return self._codes(name, stored, rows, columns).values(start, stop)
        if name.endswith(".bias"):
            return np.zeros((stop - start, columns), np.float32)
        if name.startswith("cls"):  # a head for ranking, which no graph here uses
            return np.zeros((stop - start, columns), np.float32)
        if name == "rope_freqs.weight" or name.endswith("scale"):
            return np.ones((stop - start, columns), np.float32)
        raise self._refusal(f"there is no {name}")

    def _codes(self, name: str, stored: Stored, rows: int, columns: int) -> Codes:
        if stored.kind not in STORED:
            raise self._refusal(f"{name} has ggml's type {stored.kind}, which cannot be widened")
        scheme, dtype = STORED[stored.kind]
        width = stored_width(scheme, columns)
        raw = self._file[stored.offset : stored.offset + stored.size]
        if raw.nbytes != rows * width * dtype.itemsize:
            raise self._refusal(f"{name} has {raw.nbytes} bytes for {rows} rows of {columns}")
        return Codes(scheme, raw.view(dtype).reshape(rows, width))

    def _refusal(self, what: str) -> CaseError:
        return CaseError(what, phase="open", where=str(self._path), remedy=DAMAGED)
