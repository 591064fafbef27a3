"""Adapters in whose sessions llama.cpp ends the process: called to do so, or fed a file that it asserts is none."""

from __future__ import annotations

import ctypes
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.llamacpp import LlamaCpp
from backends.llamacpp.library import library
from backends.llamacpp.session import LlamaCppSession
from bench.types import Int32, LoadGroup, Prepared

DEADLY = 24
"""Tokens of a step that no check before the measurement takes."""


class CrashesInStep(LlamaCpp):
    name = "crashing"

    def open(self, group: LoadGroup, prepared: Prepared) -> LlamaCppSession:
        return CrashingSession(group, prepared)


class CrashesAtOpen(LlamaCpp):
    """Reads a file that says that it has no layers, which llama.cpp does not survive."""

    name = "crashing"

    def open(self, group: LoadGroup, prepared: Prepared) -> LlamaCppSession:
        if group.first.fidelity == "native":
            prepared = without_layers(prepared)
        return super().open(group, prepared)


class CrashingSession(LlamaCppSession):
    def step(self, token_ids: Int32, want: Any = "last") -> Int32:
        if token_ids.shape[1] == DEADLY:
            abort("not enough space in the buffer")
        return super().step(token_ids, want)


def without_layers(prepared: Prepared) -> Prepared:
    """Another file, the same but for this number; it stays where temporary files do."""
    name, key = prepared.files[0], b".block_count"
    data = bytearray(Path(prepared.path, name).read_bytes())
    at = data.index(key) + len(key) + 4  # after four bytes of type
    data[at : at + 4] = bytes(4)
    folder = Path(tempfile.mkdtemp())
    (folder / name).write_bytes(data)
    return replace(prepared, path=str(folder))


def abort(message: str) -> None:
    """The library's own end, with the arguments of its macro GGML_ABORT."""
    from llama_cpp._ctypes_extensions import load_shared_library

    loaded = load_shared_library("llama", Path(library().api.__file__).parent / "lib")
    loaded.ggml_abort(b"ggml-scripted.cpp", ctypes.c_int(7), b"%s", message.encode())
