"""Which devices and which buffers get the tensors: the pointers of llama_model_params."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

from backends.llamacpp.devices import Present, present
from backends.llamacpp.library import Library
from backends.llamacpp.parameters import parse_overrides
from bench.errors import PrerequisiteError

EXPERTS = r"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps"
"""Names of the tensors of a layer's experts, as llama-bench's --n-cpu-moe moves them to the host."""


class Override(ctypes.Structure):
    """struct llama_model_tensor_buft_override."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer", ctypes.c_void_p))


def fill(lib: Library, params: Any, options: Mapping[str, Any], chosen: Sequence[Present]) -> list[Any]:
    """Write devices and overrides into `params`; returns what must live until the model is loaded."""
    offloaded = [each.at for each in chosen if each.kind != "cpu"]
    pointers = (ctypes.c_void_p * (len(offloaded) + 1))(*offloaded, None)
    params.devices = ctypes.cast(pointers, ctypes.c_void_p)
    overrides = [*_experts(lib, options["n_cpu_moe"]), *_named(lib, options["override_tensor"])]
    if not overrides:
        return [pointers]
    table = (Override * (len(overrides) + 1))(*overrides, Override(None, None))
    params.tensor_buft_overrides = ctypes.cast(table, ctypes.c_void_p)
    return [pointers, table]


def _experts(lib: Library, layers: int) -> list[Override]:
    buffer = _buffers(lib)["CPU"] if layers else None
    return [Override(EXPERTS.format(layer=layer).encode(), buffer) for layer in range(layers)]


def _named(lib: Library, text: str | None) -> list[Override]:
    if text is None:
        return []
    known, found = _buffers(lib), []
    for pattern, buffer in parse_overrides(text):
        if buffer not in known:
            raise PrerequisiteError(
                f"there is no buffer {buffer!r}",
                where="--set override_tensor",
                cause=f"present: {', '.join(known)}",
                remedy="name one of them",
            )
        found.append(Override(pattern.encode(), known[buffer]))
    return found


def _buffers(lib: Library) -> dict[str, int]:
    """The devices' own buffers by their names."""
    kinds = [lib.ggml_backend_dev_buffer_type(each.at) for each in present(lib)]
    return {lib.ggml_backend_buft_name(kind).decode(): kind for kind in kinds if kind}
