"""What can be exported, told without the runtime; `backends.onnx.exported` does it."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from bench.api import GROUP, Artifact, Progress
from bench.errors import missing_imports
from bench.types import Arch, Case, Family, Sample, Support

DIALECTS = ("opset21", "opset17")
SCHEMES = ("int8", "int4", "fp16")
PIECE_BYTES = 2_000_000_000
"""Readers that keep offsets in 32 bits with a sign take files up to 2 GiB."""
WIDTHS = {"int8": 1.0, "int4": 0.5 + 4 / GROUP, "fp16": 2.0}
"""Bytes that `opset21` holds of a number of the scheme, scales of groups included; `opset17` always holds 2."""


class Exporting:
    """The part of the adapter that is a bench.api.Exporter."""

    def export_support(self, case: Case) -> Support:
        """Pure and total: dialects of standard operators, schemes whose codes these hold."""
        dialect, detail = case.options.get("dialect"), ""
        if dialect not in DIALECTS:
            known = "other compilers know none of ONNX Runtime's own operators" if dialect == "contrib" else "unknown"
            detail = f"dialect {dialect}: {known}; choose {' or '.join(DIALECTS)}"
        elif case.from_file:
            detail = "weights from a file: there is no reference to check them against"
        elif case.scheme not in SCHEMES:
            detail = f"scheme {case.scheme}: the graph is built for {', '.join(SCHEMES)}"
        elif case.arch.family not in get_args(Family):
            detail = f"architecture {case.arch.family}"
        return Support(ok=False, reason="NOT_WIRED", detail=detail) if detail else Support(ok=True)

    def export_bytes(self, case: Case) -> int:
        """The weights and, while they are cut, one piece of them twice."""
        table, rest = _numbers(case.arch)
        width = WIDTHS[case.scheme] if case.options["dialect"] == "opset21" else 2.0
        table_width = max(1.0, width)  # the table of int4 is int8
        weights = int(1.02 * (table * table_width + rest * width)) + (16 << 20)
        return weights + min(weights, PIECE_BYTES)

    def export(self, case: Case, artifact: Artifact, sample: Sample, into: Path, progress: Progress) -> None:
        """Write graphs, pieces, sample and checker."""
        with missing_imports("onnx", where="backend onnx", remedy="pip install 'onnx>=1.21'"):
            from backends.onnx.exported import folder
        folder.write(case, artifact, sample, into, progress)


def _numbers(arch: Arch) -> tuple[int, int]:
    """Numbers of the table, and of all other matrices; a tied head is a matrix of its own."""
    table = arch.vocab * arch.hidden
    layer = arch.hidden * (2 * arch.q_rows + 2 * arch.kv_rows + 3 * arch.ffn)
    return table, table + arch.layers * layer
