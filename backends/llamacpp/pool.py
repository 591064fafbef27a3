"""llama-bench's threads: a pool that waits as it is told to, attached to a context."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

from backends.llamacpp.library import Library
from backends.llamacpp.threads import MOST_CORES, cpu_mask
from bench.errors import CaseError


class Params(ctypes.Structure):
    """struct ggml_threadpool_params."""

    _fields_ = (
        ("cpumask", ctypes.c_bool * MOST_CORES),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


class Pool:
    """Threads for decode steps, and others for prefills where their number differs.

    A build with OpenMP takes its threads from there and of a pool only their number; others wait in it.
    """

    def __init__(self, lib: Library, options: Mapping[str, Any], threads: int, threads_batch: int):
        self._lib = lib
        cpu = next(lib.ggml_backend_dev_get(i) for i in range(lib.ggml_backend_dev_count()) if _is_cpu(lib, i))
        registered = lib.ggml_backend_dev_backend_reg(cpu)
        self._free = _function(lib, registered, b"ggml_threadpool_free", None, ctypes.c_void_p)
        make = _function(lib, registered, b"ggml_threadpool_new", ctypes.c_void_p, ctypes.POINTER(Params))
        self._made = [make(ctypes.byref(_params(options, count))) for count in dict.fromkeys((threads, threads_batch))]
        if not all(self._made):
            raise CaseError(f"no pool of {threads} threads", phase="open", where="llama.cpp")

    def attach(self, context: Any) -> None:
        """Let `context` compute in these threads."""
        self._lib.llama_attach_threadpool(context, self._made[0], self._made[1] if len(self._made) > 1 else None)

    def close(self) -> None:
        """Free the threads; their context must be gone."""
        for pool in self._made:
            self._free(pool)
        self._made = []


def _params(options: Mapping[str, Any], threads: int) -> Params:
    mask = cpu_mask(options["cpu_mask"])
    return Params(
        cpumask=(ctypes.c_bool * MOST_CORES)(*mask),
        n_threads=threads,
        prio=options["prio"],
        poll=options["poll"],
        strict_cpu=options["cpu_strict"],
        paused=False,
    )


def _is_cpu(lib: Library, index: int) -> bool:
    return bool(lib.ggml_backend_dev_type(lib.ggml_backend_dev_get(index)) == 0)


def _function(lib: Library, registered: int, name: bytes, result: Any, argument: Any) -> Any:
    at = lib.ggml_backend_reg_get_proc_address(registered, name)
    return ctypes.CFUNCTYPE(result, argument)(at)
