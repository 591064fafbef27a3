"""Conformance checks of the onnx backend over a plugin, in a process that knows no other plugin.

    python -m tests.plugins.alone LIBRARY DIALECT FOLDER

A plugin's library keeps what it first saw of ONNX Runtime for its whole process: where the installed one was loaded, a
second one around it (any_vendor.c) changes nothing any more. Prints what failed, a line each.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

from backends.onnx import plugins
from bench.conformance.check import Failure
from bench.conformance.models import Variant
from bench.conformance.numbers import exact_agrees_with_the_reference, native_errs_as_its_class_predicts
from bench.conformance.subject import Subject


def failures(library: str, dialect: str, folder: Path) -> list[str]:
    """Exact and native, every family, int8 and int4, alone and in a batch; native where weights stay integers."""
    plugins.PREFIXES = ()
    subject = Subject("onnx", folder, {"dialect": dialect, "plugin": library}, "openvino")
    checks = [exact_agrees_with_the_reference, *([native_errs_as_its_class_predicts] if dialect == "opset21" else [])]
    found = []
    for check, model, scheme, batch in product(checks, ("llama", "qwen2", "qwen3"), ("int8", "int4"), (1, 4)):
        fidelity = "exact" if check is exact_agrees_with_the_reference else "native"
        variant = Variant(model=model, scheme=scheme, fidelity=fidelity, batch=batch)  # type: ignore[arg-type]
        try:
            check(subject, variant)
        except Failure as failure:
            found.append(f"{variant}: {failure}")
    return found


if __name__ == "__main__":
    print(*failures(sys.argv[1], sys.argv[2], Path(sys.argv[3])), sep="\n")
