"""Folders that `bench export onnx` writes, of tiny models, made and checked without the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import exporting
from bench.artifacts.reader import open_artifact
from bench.artifacts.sample import make_sample
from bench.artifacts.synthesize import synthesize
from bench.types import Case, Sample, Workload
from tests.tiny import tiny_arch


def export_case(family: str = "llama", scheme: str = "int8", dialect: str = "opset21", **changes: Any) -> Case:
    """`length` (None: dynamic), `chunk`, `batch`; all else are numbers of the architecture."""
    length, chunk, batch = changes.pop("length", 48), changes.pop("chunk", 16), changes.pop("batch", 1)
    prompt, steps = exporting.sampled(length)
    return Case(
        model="tiny",
        scheme=scheme,
        weights="synthetic",
        arch=tiny_arch(family, **changes),
        backend="onnx",
        device=None,
        provider=None,
        fidelity="exact",
        workload=Workload(
            name="sample",
            prompt_tokens=prompt,
            new_tokens=steps,
            batch=batch,
            chunk=chunk if length else prompt,
        ),
        kv_capacity=length or prompt + steps,
        options={"dialect": dialect, "shapes": "static" if length else "dynamic"},
    )


def export(case: Case, scratch: Path, piece_bytes: int = 1 << 30) -> Path:
    """The folder `scratch`/exported."""
    from backends.onnx.exported import folder

    artifact, into = scratch / "artifact", scratch / "exported"
    artifact.mkdir()
    into.mkdir()
    synthesize(artifact, model=case.model, arch=case.arch, scheme=case.scheme, processes=1)
    opened = open_artifact(artifact)
    sample: Sample = make_sample(opened, case.workload.batch, case.workload.positions)
    folder.write(case, opened, sample, into, lambda done, total: None, piece_bytes)
    seal(into)
    return into


def seal(into: Path) -> None:
    """`SHA256SUMS` of the files as they are now."""
    (into / exporting.SUMS_NAME).unlink(missing_ok=True)
    exporting.write_sums(into, lambda done, total: None)


def check(into: Path, *words: str) -> tuple[int, str]:
    """Exit code of `check.py`, and what it said."""
    done = subprocess.run(
        [sys.executable, "-I", str(into / "check.py"), *words], capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout + done.stderr
