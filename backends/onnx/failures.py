"""The one place where the runtime's exceptions become ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bench.errors import BenchError, CaseError

_MEMORY = ("bad_alloc", "failed to allocate", "out of memory", "bad allocation")
_OPTIONS = ("option", "property", "json", "config", "parse", "device id")
"""What a provider says where it does not understand what it was given."""
_FILES = ("NoSuchFile", "InvalidProtobuf", "InvalidGraph", "NoModel")


def plain(error: Exception) -> str:
    """The runtime's own words in one line: without the places in its source that come before them."""
    text = " ".join(str(error).split())
    return re.split(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", text)[-1][:500]


def refused(error: Exception, provider: str, given: Mapping[str, str]) -> Exception:
    """What to raise for a session that `provider` refused, which was `given` these options; `error` if it is of files.

    Whether the options are to blame is judged by the runtime's words.
    """
    text = plain(error)
    if isinstance(error, BenchError | MemoryError) or type(error).__name__ in _FILES or not given:
        return error
    if any(sign in text.lower() for sign in (*_MEMORY, "external")):
        return error
    named = [name for name in given if name in text] or (
        list(given) if any(sign in text.lower() for sign in _OPTIONS) else []
    )
    if not named:
        return error
    told = ", ".join(f"{name}={given[name]}" for name in named)
    remedy = f"correct it, or take it away: --set ep.{named[0]}="
    return CaseError(f"{provider} refuses its options: {told}", phase="open", cause=text, remedy=remedy)


def translated(error: Exception, phase: str) -> BenchError:
    """`error` of ONNX Runtime as a CaseError of `phase`; our own errors pass through."""
    if isinstance(error, BenchError):
        return error
    text = plain(error)
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _MEMORY):
        return CaseError("out of memory", phase=phase, where="onnxruntime", cause=text)
    if type(error).__name__ in _FILES or "external" in text.lower():
        remedy = "`bench cache verify` finds damaged files and says how to be rid of them"
        return CaseError("the prepared graph cannot be loaded", phase=phase, cause=text, remedy=remedy)
    return CaseError(text, phase=phase, where="onnxruntime", cause=type(error).__name__)
