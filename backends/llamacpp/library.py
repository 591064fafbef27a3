"""The shared libraries: what llama-cpp-python declares, what it does not (ggml, gguf), and what they log."""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.llamacpp.builds import PINNED, REMEDY, RUNTIME
from bench.errors import PrerequisiteError, missing_imports

OVERRIDE = "LLAMA_CPP_LIB_PATH"
"""llama-cpp-python loads another library from there, whose structs nobody has compared."""
_POINTER, _TEXT, _SIZE, _INT = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int


class GgufInit(ctypes.Structure):
    """struct gguf_init_params."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


class DeviceProperties(ctypes.Structure):
    """struct ggml_backend_dev_props. What a device can do is read nowhere; it has had four or five flags."""

    _fields_ = (
        ("name", _TEXT),
        ("description", _TEXT),
        ("memory_free", _SIZE),
        ("memory_total", _SIZE),
        ("type", _INT),
        ("device_id", _TEXT),
        ("capabilities", ctypes.c_bool * 32),
    )


_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "ggml_version": (_TEXT, ()),
    "ggml_set_abort_callback": (_POINTER, (_POINTER,)),
    "ggml_tensor_overhead": (_SIZE, ()),
    "ggml_nbytes": (_SIZE, (_POINTER,)),
    "ggml_type_name": (_TEXT, (_INT,)),
    "ggml_op_desc": (_TEXT, (_POINTER,)),
    "ggml_backend_tensor_get": (None, (_POINTER, _POINTER, _SIZE, _SIZE)),
    "ggml_backend_tensor_set": (None, (_POINTER, _POINTER, _SIZE, _SIZE)),
    "ggml_backend_buffer_get_type": (_POINTER, (_POINTER,)),
    "ggml_backend_buffer_is_host": (ctypes.c_bool, (_POINTER,)),
    "ggml_backend_buft_name": (_TEXT, (_POINTER,)),
    "ggml_backend_buft_get_device": (_POINTER, (_POINTER,)),
    "ggml_backend_dev_name": (_TEXT, (_POINTER,)),
    "ggml_backend_dev_description": (_TEXT, (_POINTER,)),
    "ggml_backend_dev_type": (_INT, (_POINTER,)),
    "ggml_backend_dev_get_props": (None, (_POINTER, _POINTER)),
    "ggml_backend_dev_memory": (None, (_POINTER, _POINTER, _POINTER)),
    "ggml_backend_dev_backend_reg": (_POINTER, (_POINTER,)),
    "ggml_backend_dev_buffer_type": (_POINTER, (_POINTER,)),
    "ggml_backend_reg_name": (_TEXT, (_POINTER,)),
    "ggml_backend_reg_get_proc_address": (_POINTER, (_POINTER, _TEXT)),
    "gguf_init_from_file": (_POINTER, (_TEXT, GgufInit)),
    "gguf_free": (None, (_POINTER,)),
    "gguf_find_key": (ctypes.c_int64, (_POINTER, _TEXT)),
    "gguf_get_kv_type": (_INT, (_POINTER, ctypes.c_int64)),
    "gguf_get_val_str": (_TEXT, (_POINTER, ctypes.c_int64)),
    "gguf_set_val_u32": (None, (_POINTER, _TEXT, ctypes.c_uint32)),
    "gguf_get_n_tensors": (ctypes.c_int64, (_POINTER,)),
    "gguf_get_tensor_name": (_TEXT, (_POINTER, ctypes.c_int64)),
    "gguf_get_tensor_type": (_INT, (_POINTER, ctypes.c_int64)),
    "gguf_set_tensor_type": (None, (_POINTER, _TEXT, _INT)),
    "gguf_get_tensor_offset": (_SIZE, (_POINTER, ctypes.c_int64)),
    "gguf_get_tensor_size": (_SIZE, (_POINTER, ctypes.c_int64)),
    "gguf_get_data_offset": (_SIZE, (_POINTER,)),
    "ggml_backend_load_all": (None, ()),
    "ggml_backend_dev_count": (_SIZE, ()),
    "ggml_backend_dev_get": (_POINTER, (_SIZE,)),
    "ggml_backend_reg_count": (_SIZE, ()),
    "ggml_backend_reg_get": (_POINTER, (_SIZE,)),
    "llama_attach_threadpool": (None, (_POINTER, _POINTER, _POINTER)),
    "llama_get_logits": (_POINTER, (_POINTER,)),
}
"""Not declared by llama-cpp-python, or with a result that costs more to make than to use."""
_ABORTING = ctypes.CFUNCTYPE(None, _TEXT)
_INFO, _CONTINUED = 2, 5  # enum ggml_log_level


class Library:
    """The pinned libraries, loaded once a process. `api` is llama-cpp-python's low level; ggml's functions are here."""

    def __init__(self) -> None:
        with missing_imports("llama.cpp", where="backend llamacpp", remedy=REMEDY):
            import llama_cpp
            import llama_cpp.llama_cpp as api
        _refuse_others(llama_cpp.__version__)
        self.api: Any = api
        self._declare(Path(api.__file__).parent / "lib")
        self.log = Log(api)
        self.ggml_set_abort_callback(self.log.last_words)
        self.ggml_backend_load_all()
        api.llama_backend_init()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def _declare(self, folder: Path) -> None:
        """All through llama.cpp's own file, which leads to the ggml that it is linked with.

        A wheel holds each library three times, where a build has links: ggml's other files would be loaded a second
        time, with devices, log and abort callback of their own.
        """
        from llama_cpp._ctypes_extensions import load_shared_library

        loaded = load_shared_library("llama", folder)
        for function, (result, arguments) in _FUNCTIONS.items():
            found = getattr(loaded, function)
            found.restype, found.argtypes = result, arguments
            setattr(self, function, found)

    def registered(self) -> list[str]:
        """Names of ggml's backends in this build: CPU, CUDA, …"""
        count = self.ggml_backend_reg_count()
        return [self.ggml_backend_reg_name(self.ggml_backend_reg_get(i)).decode() for i in range(count)]

    def versions(self) -> dict[str, str]:
        """What computes, by version; the backends compiled in belong to it."""
        return {
            RUNTIME: PINNED,
            "llama.cpp": self.api.llama_version().decode(),
            "ggml": f"{self.ggml_version().decode()} with {'+'.join(self.registered())}",
        }

    def features(self) -> str:
        """llama.cpp's own line about what it was compiled for."""
        told: bytes = self.api.llama_print_system_info()
        return told.decode().strip()


class Log:
    """What the library logs: kept for facts and errors, and passed on to the worker's log.

    Its callbacks stay for the process's life: a library that calls a freed one crashes. `last_words` is called when the
    library ends the process: its message is the last line of the log then, where ggml would have a debugger print
    hundreds after it.
    """

    def __init__(self, api: Any):
        self._lines: deque[str] = deque([""], maxlen=4000)
        self._level = _INFO
        self._callback = api.llama_log_callback(self._take)
        api.llama_log_set(self._callback, None)
        self.last_words = _ABORTING(lambda message: _write(message + b"\n"))

    def _take(self, level: int, text: bytes, _: Any) -> None:
        self._level = self._level if level == _CONTINUED else level
        if self._level < _INFO:
            return
        _write(text)
        first, *others = text.decode(errors="replace").split("\n")
        self._lines[-1] += first
        self._lines.extend(others)

    def last(self, count: int) -> list[str]:
        """The last lines that say something."""
        return [line.strip() for line in self._lines if line.strip()][-count:]

    @contextmanager
    def since(self) -> Iterator[list[str]]:
        """A list that holds, once the block is left, the lines that were logged in it."""
        said: list[str] = []
        self._lines = deque([""], maxlen=4000)
        try:
            yield said
        finally:
            said.extend(line for line in self._lines if line.strip())


def _write(text: bytes) -> None:
    """The runtime's own words, where it would have written them."""
    os.write(2, text)


@cache
def library() -> Library:
    """The libraries; PrerequisiteError where they are missing or not the ones that this adapter was written for."""
    return Library()


def _refuse_others(version: str) -> None:
    if version != PINNED:
        raise PrerequisiteError(
            f"{RUNTIME} {version} is installed, {PINNED} is needed",
            where="backend llamacpp",
            cause="the structs of llama.cpp change with every release",
            remedy=REMEDY,
        )
    if OVERRIDE in os.environ:
        raise PrerequisiteError(
            f"{OVERRIDE} names another library",
            where="backend llamacpp",
            cause="its structs may differ from those that are read here",
            remedy=f"unset {OVERRIDE}",
        )
