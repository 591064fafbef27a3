"""`bench export`: what is here in others' formats, one command a format, imported when it is called."""

from __future__ import annotations

import click

from bench.cli.lazy import Lazy

FORMATS = {
    "llama-bench": "bench.cli.export_records:export_records",
    "onnx": "bench.cli.export_onnx:export_onnx",
}


@click.group(
    cls=Lazy,
    paths=FORMATS,
    kind="format",
    remedy=f"formats: {', '.join(FORMATS)}",
    short_help="Records or models in others' formats.",
)
def export() -> None:
    """Write records as another tool writes them, or a model for others' compilers."""
