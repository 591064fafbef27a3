"""The one place where the runtime's exceptions become ours."""

from __future__ import annotations

from bench.errors import BenchError, CaseError

_MEMORY = ("bad_alloc", "failed to allocate", "out of memory", "bad allocation")
_FILES = ("NoSuchFile", "InvalidProtobuf", "InvalidGraph", "NoModel")


def translated(error: Exception, phase: str) -> BenchError:
    """`error` of ONNX Runtime as a CaseError of `phase`; our own errors pass through."""
    if isinstance(error, BenchError):
        return error
    text = " ".join(str(error).split())[:500]
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _MEMORY):
        return CaseError("out of memory", phase=phase, where="onnxruntime", cause=text)
    if type(error).__name__ in _FILES or "external" in text.lower():
        remedy = "`bench cache verify` finds damaged files and says how to be rid of them"
        return CaseError("the prepared graph cannot be loaded", phase=phase, cause=text, remedy=remedy)
    return CaseError(text, phase=phase, where="onnxruntime", cause=type(error).__name__)
