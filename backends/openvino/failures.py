"""The one place where the runtime's exceptions become ours."""

from __future__ import annotations

import os
import re

from bench.errors import BenchError, CaseError

_MEMORY = (
    "bad_alloc",
    "out of memory",
    "failed to allocate",
    "cl_out_of_resources",
    "cl_mem_object_allocation_failure",
    "out_of_host_memory",
    "out_of_device_memory",
    "exceeded max size of memory",
)
_NOISE = re.compile(r"Exception from \S+:\s*|Check '[^']*' failed at \S+:\s*")
"""What OpenVINO puts before its own words: places in its source."""
_READING = ("src/frontends/", "xml_deserialize", "model_reader")
"""Places in its source where it reads an IR."""
_NO_KERNEL = ("primitive descriptor", "brgemm", "bad combination")
LOWERED = "ONEDNN_MAX_CPU_ISA"
"""Takes instruction sets away from oneDNN's kernels, but not from the plugin's choice of precision."""


def told(error: Exception) -> str:
    """The runtime's own words, without the places in its source."""
    return " ".join(_NOISE.sub("", str(error)).split())[:500]


def translated(error: Exception, phase: str) -> BenchError:
    """`error` of OpenVINO as a CaseError of `phase`; our own errors pass through."""
    if isinstance(error, BenchError):
        return error
    text = told(error)
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _MEMORY):
        return CaseError("out of memory", phase=phase, where="openvino", cause=text)
    if any(place in str(error) for place in _READING):
        remedy = "`bench cache verify` finds damaged files and says how to be rid of them"
        return CaseError("the prepared IR cannot be read", phase=phase, where="openvino", cause=text, remedy=remedy)
    if LOWERED in os.environ and any(sign in text for sign in _NO_KERNEL):
        return no_kernel(text, phase)
    return CaseError(text, phase=phase, where="openvino", cause=type(error).__name__)


def no_kernel(cause: str, phase: str) -> CaseError:
    """What lowering the instruction set has taken away, and what to ask for instead."""
    return CaseError(
        f"no kernel of the precision asked for under {LOWERED}={os.environ[LOWERED]}",
        phase=phase,
        where="openvino",
        cause=cause,
        remedy="add --set inference_precision=f32, and below AVX512_CORE --set dynamic_quantization_group_size=0; "
        "below AVX2 there is none at all",
    )
