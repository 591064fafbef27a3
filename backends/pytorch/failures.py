"""The one place where torch's exceptions become ours."""

from __future__ import annotations

from bench.errors import BenchError, CaseError

_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def translated(error: Exception, phase: str) -> BenchError:
    """`error` of torch as a CaseError of `phase`; our own errors pass through."""
    if isinstance(error, BenchError):
        return error
    text = (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _MEMORY):
        return CaseError("out of memory", phase=phase, where="torch", cause=text)
    return CaseError(text, phase=phase, where="torch", cause=type(error).__name__)
