"""A loaded model and contexts over it: what of the library must be freed, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backends.llamacpp import devices, placing, widened
from backends.llamacpp.library import Library
from backends.llamacpp.parameters import fill_context, fill_model
from backends.llamacpp.pool import Pool
from backends.llamacpp.tensors import check_struct
from backends.llamacpp.threads import default_threads
from bench.errors import CaseError
from bench.types import Case

PAD = 256
"""llama.cpp rounds the cache of a sequence up to this many positions."""
EXACT = {"flash_attn": "off", "type_k": "f32", "type_v": "f32", "repack": False, "no_op_offload": True}


class Model:
    """Weights on the devices asked for. `log` holds what llama.cpp said while it loaded."""

    def __init__(self, lib: Library, case: Case, path: Path, layers: int):
        check_struct(lib)
        self.lib, self.exact, self.path = lib, case.fidelity == "exact", path
        self.options: dict[str, Any] = {**case.options, **(EXACT if self.exact else {})}
        self.devices = devices.asked_for(lib, case.device)
        self.threads = self.options["threads"] or default_threads()
        self.free_before = {each.name: devices.free_bytes(lib, each) for each in self.devices}
        params = lib.api.llama_model_default_params()
        kept = [*fill_model(params, self.options), *placing.fill(lib, params, self.options, self.devices)]
        with lib.log.since() as self.log:
            if self.exact:
                self.at = widened.load(lib, path, layers, params)
            else:
                self.at = lib.api.llama_model_load_from_file(str(path).encode(), params)
        del kept  # it was needed while the model was loaded
        if not self.at:
            raise refused("llama.cpp cannot load it", self.log, str(path))

    def context(self, capacity: int, rows: int, callback: Any = None) -> Context:
        """A KV cache of `rows` sequences of `capacity` tokens; `callback` sees every node of the graph."""
        return Context(self, capacity, rows, callback)

    def close(self) -> None:
        if self.at:
            self.lib.api.llama_model_free(self.at)
        self.at = None


class Context:
    """One llama_context with its KV cache and its threads."""

    def __init__(self, model: Model, capacity: int, rows: int, callback: Any = None):
        if rows > model.options["n_batch"]:  # which ends the process
            raise CaseError(f"{rows} rows are more than n_batch", phase="open", remedy=f"--set n_batch={rows}")
        self.lib, api = model.lib, model.lib.api
        params = api.llama_context_default_params()
        fill_context(params, model.options, model.threads)
        params.n_ctx = rows * -(-capacity // PAD) * PAD
        params.n_seq_max = rows
        if callback is not None:
            params.cb_eval = callback
        with self.lib.log.since() as self.log:
            self.at = api.llama_init_from_model(model.at, params)
        if not self.at:
            raise refused("no context for the model", self.log, "llama.cpp")
        self.pool = Pool(self.lib, model.options, params.n_threads, params.n_threads_batch)
        self.pool.attach(self.at)
        self.n_batch: int = api.llama_n_batch(self.at)
        self.n_ubatch: int = api.llama_n_ubatch(self.at)
        self.memory = api.llama_get_memory(self.at)

    def close(self) -> None:
        if self.at:
            self.lib.api.llama_free(self.at)
            self.pool.close()
        self.at = None


def refused(what: str, log: list[str], where: str) -> CaseError:
    """What llama.cpp would not do, with its own last words."""
    told = [line.strip() for line in log if "error" in line.lower() or "failed" in line.lower()]
    told = [line for line in told if not line.endswith("failed to load model")] or log[-2:]  # which says nothing new
    words = "; ".join(dict.fromkeys(told))[:500]
    memory = any(sign in words.lower() for sign in ("out of memory", "failed to allocate", "unable to allocate"))
    return CaseError("out of memory" if memory else what, phase="open", where=where, cause=words or None)
