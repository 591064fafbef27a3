"""`bench export onnx` as it is typed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import refused
from tests.exported import check
from tests.sweeps.conftest import Bench

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

EXPORT = ("export", "onnx", "--models", "tiny.toml")


def test_a_model_is_exported_and_checks_itself(bench: Bench, tmp_path: Path) -> None:
    done = bench(*EXPORT, "tiny-int8", "--dialect", "opset17", "--static", "64", "--chunk", "16", "--batch", "2", "out")
    assert done.code == 0, done.err
    assert done.out.startswith("tiny-int8 opset17 ") and done.out.endswith(" out\n")
    assert [line for line in done.err.splitlines() if "export tiny-int8" in line]
    assert not [path.name for path in tmp_path.iterdir() if "out" in path.name and path.name != "out"]
    assert {"prefill.onnx", "decode.onnx", "weights-1.bin"} < {path.name for path in (tmp_path / "out").iterdir()}
    code, said = check(tmp_path / "out")
    assert code == 0 and said.endswith("passed\n"), said
    sums = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path / "out", capture_output=True)
    assert sums.returncode == 0, sums.stdout

    dynamic = bench(*EXPORT, "tiny-int8", "--dialect", "opset21", "dynamic")
    assert dynamic.code == 0, dynamic.err
    assert check(tmp_path / "dynamic")[0] == 0

    refused(bench(*EXPORT, "tiny-int8", "--dialect", "opset21", "out"), 2, "out: is not empty", "name a new folder")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("tiny-int8", "--dialect", "contrib", "out"), ("dialect contrib", "opset21 or opset17")),
        (("tiny-int8", "--dialect", "opset23", "out"), ("dialect opset23: unknown", "opset21 or opset17")),
        (("tiny-bf16", "--dialect", "opset21", "out"), ("tiny-bf16", "scheme bf16", "int8, int4, fp16")),
        (("tiny.toml", "--dialect", "opset21", "out"), ("weights of a file cannot be exported", "no reference")),
        (("tiny-int9", "--dialect", "opset21", "out"), ("unknown scheme 'int9'",)),
        (("tiny-int8", "out"), ("--dialect", "bench export onnx --help")),
        (("tiny-int8", "--dialect", "opset21"), ("DIR",)),
        (("tiny-int8", "--dialect", "opset21", "--static", "1", "out"), ("--static: 1 positions", "2 to 512")),
        (("tiny-int8", "--dialect", "opset21", "--static", "513", "out"), ("--static: 513 positions", "2 to 512")),
        (("tiny-int8", "--dialect", "opset21", "--chunk", "8", "out"), ("--chunk: needs --static",)),
        (
            ("tiny-int8", "--dialect", "opset21", "--static", "50", "--chunk", "8", "out"),
            ("chunks of 8 tokens do not fill a cache of 50", "divisor"),
        ),
        (("tiny-int8", "--dialect", "opset21", "--static", "300", "out"), ("chunks of 128", "cache of 300")),
        (("tiny-int8", "--dialect", "opset21", "--batch", "0", "out"), ("--batch: 0 is too few",)),
        (("tiny-int8", "--dialect", "opset21", "no/out"), ("no/out: lies in no folder", "mkdir -p no")),
        (("tiny-int8", "--dialect", "opset21", "--python", "/no/python", "out"), ("/no/python",)),
    ],
)
def test_what_is_typed_wrong(bench: Bench, tmp_path: Path, words: tuple[str, ...], says: tuple[str, ...]) -> None:
    ended = bench(*EXPORT, *words)
    refused(ended, ended.code, *says)
    assert ended.code in (2, 3)
    assert not (tmp_path / "out").exists()


def test_formats_are_told(bench: Bench) -> None:
    help_text = bench("export", "--help").out
    assert "llama-bench" in help_text and "onnx" in help_text
    refused(bench("export", "onxx"), 2, "unknown format 'onxx'", "nearest: onnx", "formats: llama-bench, onnx")
    refused(bench("export", "gguf"), 2, "unknown format 'gguf'", "llama-bench", "onnx")


def test_the_parent_loads_no_runtime(tmp_path: Path) -> None:
    """Neither does planning an export, which asks the adapter for its size."""
    code = (
        "import sys; from backends.onnx import Onnx; from tests.exported import export_case; "
        "import bench.cli.export_onnx; Onnx().export_bytes(export_case()); "
        "print([m for m in ('onnx', 'onnxruntime') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stdout == "[]\n", done.stderr
