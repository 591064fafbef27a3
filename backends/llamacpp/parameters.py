"""The options of `--set`: the fields of llama.cpp's parameter structs by llama-bench's or their own names.

Only those are left out that would make it another task: pooling, embeddings, samplers, callbacks.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from typing import Any

from backends.llamacpp.threads import MOST_CORES, cpu_mask
from bench.errors import UsageError
from bench.types import Option, Support

SPLIT_MODES = ("none", "layer", "row", "tensor")
LOAD_MODES = {"auto": -1, "none": 0, "mmap": 1, "mlock": 2, "mmap+mlock": 3, "dio": 4}
LAZY_MODES = ("off", "auto", "on")
FLASH = {"auto": -1, "off": 0, "on": 1}
ROPE_SCALING = ("none", "linear", "yarn", "longrope")
KV_TYPES = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "iq4_nl": 20}
"""ggml's numbers of the types that a KV cache can have (enum ggml_type)."""
PREDICTED = ("f32", "f16", "q8_0", "bf16")
"""Types of a KV cache whose error the reference predicts, or which does not show beside the weights' own."""
MOST = {"threads": MOST_CORES, "threads_batch": MOST_CORES, "poll": 100, "prio": 3}
MOST_INT = 2**31 - 1
"""Of all others: a larger number would be cut to 32 bits without a word."""
MOST_SHARES = 128
"""More than any build has devices."""


def _number(help: str, default: int | None = None, minimum: int | None = None) -> Option:
    return Option(kind=int, default=default, help=help, minimum=minimum)


def _switch(help: str, default: bool | None = None) -> Option:
    return Option(kind=bool, default=default, help=help)


def _choice(help: str, default: str | None, choices: Any) -> Option:
    return Option(kind=str, default=default, help=help, choices=tuple(choices))


def _real(help: str) -> Option:
    return Option(kind=float, default=None, help=help)


OPTIONS: Mapping[str, Option] = {
    "threads": _number("threads; default: as llama-bench, physical cores without efficiency cores", minimum=1),
    "threads_batch": _number("threads of a prefill; default: as many as threads", minimum=1),
    "n_batch": _number("most tokens that are handed over at once", 2048, 1),
    "n_ubatch": _number("most tokens that are computed at once", 512, 1),
    "flash_attn": _choice("fused attention", "auto", FLASH),
    "type_k": _choice("type of cached keys", "f16", KV_TYPES),
    "type_v": _choice("type of cached values", "f16", KV_TYPES),
    "n_gpu_layers": _number("layers on the devices; -1: all", -1, -1),
    "split_mode": _choice("how several devices share a model", "layer", SPLIT_MODES),
    "main_gpu": _number("device of the whole model with split_mode none", 0, 0),
    "tensor_split": Option(kind=str, default=None, help="shares of the devices, as 3/1; default: by free memory"),
    "no_kv_offload": _switch("KV cache and attention stay on the host", False),
    "no_op_offload": _switch("what lies on the host is computed there, also in a prefill", False),
    "no_host": _switch("no pinned host buffers", False),
    "repack": _switch("weights are re-ordered for the processor's kernels", True),
    "load_mode": _choice("how the file is read", "auto", LOAD_MODES),
    "lazy_mode": _choice("rows of marked tensors are read on demand", "auto", LAZY_MODES),
    "check_tensors": _switch("llama.cpp checks the weights while it loads", False),
    "kv_unified": _switch("one KV cache for all rows of a batch", False),
    "swa_full": _switch("sliding windows keep all positions", False),
    "override_tensor": Option(
        kind=str, default=None, help="PATTERN=BUFFER[;…]: tensors whose name matches lie in that buffer"
    ),
    "n_cpu_moe": _number("experts of the first layers stay on the host", 0, 0),
    "poll": _number("how much waiting threads poll, 0 to 100", 50, 0),
    "cpu_mask": Option(kind=str, default="0x0", help="cores of the threads, in hexadecimal; 0x0: any"),
    "cpu_strict": _switch("each thread stays on its core", False),
    "prio": _number("priority of the threads, -1 to 3", 0, -1),
    "rope_scaling": _choice("another rotary scaling than the file's", None, ROPE_SCALING),
    "rope_freq_base": _real("another rotary base than the file's"),
    "rope_freq_scale": _real("another rotary scale than the file's"),
    "yarn_ext_factor": _real("YaRN's mix factor"),
    "yarn_attn_factor": _real("YaRN's magnitude"),
    "yarn_beta_fast": _real("YaRN's fast correction"),
    "yarn_beta_slow": _real("YaRN's slow correction"),
    "yarn_orig_ctx": _number("YaRN's original context", None, 1),
}

_FLOATS = tuple(name for name, option in OPTIONS.items() if option.kind is float)


def fill_model(params: Any, options: Mapping[str, Any]) -> list[Any]:
    """Write `options` into llama_model_params; returns what must live until the model is loaded."""
    params.n_gpu_layers = options["n_gpu_layers"]
    params.split_mode = SPLIT_MODES.index(options["split_mode"])
    params.main_gpu = options["main_gpu"]
    params.load_mode = LOAD_MODES[options["load_mode"]]
    params.lazy_mode = LAZY_MODES.index(options["lazy_mode"])
    params.no_host = options["no_host"]
    params.use_extra_bufts = options["repack"]
    params.check_tensors = options["check_tensors"]
    if options["tensor_split"] is None:
        return []
    shares = _shares(options["tensor_split"])
    params.tensor_split = ctypes.cast(shares, type(params.tensor_split))
    return [shares]


def fill_context(params: Any, options: Mapping[str, Any], threads: int) -> None:
    """Write `options` into llama_context_params; `threads` is what was asked for or chosen."""
    params.n_threads = threads
    params.n_threads_batch = options["threads_batch"] or threads
    params.n_batch, params.n_ubatch = options["n_batch"], options["n_ubatch"]
    params.flash_attn_type = FLASH[options["flash_attn"]]
    params.type_k, params.type_v = KV_TYPES[options["type_k"]], KV_TYPES[options["type_v"]]
    params.offload_kqv = not options["no_kv_offload"]
    params.op_offload = not options["no_op_offload"]
    params.kv_unified, params.swa_full = options["kv_unified"], options["swa_full"]
    if options["rope_scaling"] is not None:
        params.rope_scaling_type = ROPE_SCALING.index(options["rope_scaling"])
    for name in (*_FLOATS, "yarn_orig_ctx"):
        if options[name] is not None:
            setattr(params, name, options[name])


def _shares(text: str) -> Any:
    """`3/1` as an array of floats, as long as any build asks for."""
    try:
        numbers = [float(part) for part in text.split("/")]
        if min(numbers) < 0 or not 0 < sum(numbers) < math.inf or len(numbers) > MOST_SHARES:
            raise ValueError
    except ValueError:
        raise UsageError(f"{text!r} is no share of devices", where="--set tensor_split", remedy="write 3/1") from None
    return (ctypes.c_float * MOST_SHARES)(*numbers)


def objection(options: Mapping[str, Any], scheme: str | None) -> Support | None:
    """Why these values cannot be used; None where they can. With weights of `scheme` their error must be predicted."""
    try:
        if options["tensor_split"] is not None:
            _shares(options["tensor_split"])
        if options["override_tensor"] is not None:
            parse_overrides(options["override_tensor"])
        cpu_mask(options["cpu_mask"])
    except UsageError as error:
        return Support(ok=False, reason="NEVER", detail=str(error))
    for name, option in OPTIONS.items():
        if option.kind is int and (options[name] or 0) > (most := MOST.get(name, MOST_INT)):
            detail = f"--set {name}={options[name]}: llama.cpp takes {most} at most"
            return Support(ok=False, reason="NEVER", detail=detail)
    unpredicted = scheme and _unpredicted({options["type_k"], options["type_v"]}, scheme)
    return Support(ok=False, reason="NOT_WIRED", detail=unpredicted) if unpredicted else None


def _unpredicted(types: set[str], scheme: str) -> str | None:
    """Why nobody knows how much a KV cache of keys and values of `types` errs; None where the reference does."""
    known = PREDICTED[:-1] if scheme == "fp16" else PREDICTED
    if not types <= set(known):
        named = ", ".join(sorted(types - set(known)))
        return f"a KV cache of {named} beside {scheme}: its error is predicted for {', '.join(known)} only"
    if "q8_0" in types and len(types) > 1:
        return "a KV cache of q8_0 in part: its error is predicted for keys and values alike"
    return None


def parse_overrides(text: str) -> list[tuple[str, str]]:
    """`PATTERN=BUFFER;…` as pairs; UsageError for what is none."""
    pairs = [part.partition("=")[::2] for part in text.split(";") if part]
    if not pairs or any(not pattern or not buffer for pattern, buffer in pairs):
        raise UsageError(f"{text!r} moves no tensors", where="--set override_tensor", remedy=r"write 'blk\.0\..*=CPU'")
    return pairs
