"""What the runtime model of a compiled model shows: layers, and the kernel that executes each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

BOOKKEEPING = {
    "assign", "const", "constant", "input", "memoryinput", "memoryoutput", "mutabledata", "output", "parameter",
    "readvalue", "reshape", "result", "shapeof",
}  # fmt: skip
"""Layers that hold or rename data and compute nothing, in plain letters: plugins write ReadValue and read_value."""
WORK = {
    "matmul": ("fullyconnected", "matmul", "gemm"),
    "attention": ("scaleddotproductattention", "sdpa", "softmax"),
    "embedding": ("gather",),
}
"""Kinds of work, and how plugins call the layers that do it, the fused ones first."""
NAMELESS = ("", "undef", "unknown")
"""What the first part of a kernel's name is where a layer does not tell its kernel."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One executed layer: its type, its kernel, and the type that it computes with."""

    kind: str
    kernel: str
    precision: str


def layers(runtime_model: Any) -> list[Layer]:
    """Every layer of a runtime model, in its order; plugins leave out what they do not tell."""

    def told(node: Any, key: str) -> str:
        info = node.get_rt_info()
        return str(info[key].astype(str)) if key in info else ""

    return [
        Layer(told(node, "layerType"), told(node, "primitiveType"), told(node, "runtimePrecision"))
        for node in runtime_model.get_ordered_ops()
    ]


def operations(found: Sequence[Layer]) -> dict[str, int]:
    """Layers that compute, by type."""
    return dict(Counter(layer.kind for layer in found if _plain(layer.kind) not in BOOKKEEPING))


def kernels(found: Sequence[Layer]) -> dict[str, str]:
    """For each kind of work, the layers that do it: their number, kernel, and the type that they compute with."""
    named = {}
    for work, kinds in WORK.items():
        doing = next(filter(None, (_doing(kind, found) for kind in kinds)), [])
        if doing:
            named[work] = _counted(doing)
    return named


def _doing(kind: str, found: Sequence[Layer]) -> list[Layer]:
    return [layer for layer in found if kind in _plain(layer.kind)]


def _plain(kind: str) -> str:
    return kind.lower().replace("_", "")


def _counted(found: Sequence[Layer]) -> str:
    """Most frequent first. Of layers of one kind some plugins tell the kernel of the first only."""
    counts = Counter(f"{layer.kind} {layer.kernel} ({layer.precision})" for layer in found if _tells(layer))
    if not counts:
        return f"{len(found)} × {found[0].kind}, kernel not told"
    silent = sum(not _tells(layer) for layer in found)
    named = ", ".join(f"{count} × {name}" for name, count in counts.most_common())
    return named + (f", {silent} without a name" if silent else "")


def _tells(layer: Layer) -> bool:
    return layer.kernel.partition("_")[0] not in NAMELESS
