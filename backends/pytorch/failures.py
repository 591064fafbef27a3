"""The one place where torch's exceptions become ours."""

from __future__ import annotations

from bench.errors import BenchError, CaseError

_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def translated(error: Exception, phase: str) -> BenchError:
    """`error` of torch as a CaseError of `phase`; our own errors pass through."""
    if isinstance(error, BenchError):
        return error
    first, *others = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = (f"{first} {others[0]}" if first.endswith(":") and others else first).strip()[:500]
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _MEMORY):
        return CaseError("out of memory", phase=phase, where="torch", cause=text)
    return CaseError(text, phase=phase, where="torch", cause=type(error).__name__)
