"""Files of the cache that were truncated, altered or lost since: never used, and the message names the file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import TINY_SWEEP
from tests.sweeps.conftest import Bench


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def alter(path: Path) -> None:
    """One bit in the middle; size and modification time stay."""
    stamp, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # another file in its place: what a copy or a restore leaves
    path.write_bytes(data)
    path.touch()
    assert path.stat().st_size == stamp.st_size


def break_json(path: Path) -> None:
    path.write_text(path.read_text()[:40])


def lie_in_json(path: Path) -> None:
    """Well-formed, but its architecture is another."""
    content = json.loads(path.read_text())
    content["arch"]["rope_theta"] *= 2
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("files", "harm", "says"),
    [
        ("artifacts/*/model.gguf", truncate, ("model.gguf", "bytes instead of", "truncated or altered")),
        ("artifacts/*/model.gguf", alter, ("model.gguf: is not what was sealed (altered)",)),
        ("artifacts/*/model.gguf", Path.unlink, ("model.gguf: is missing",)),
        ("artifacts/*/tensors.json", break_json, ("tensors.json", "bytes instead of")),
        ("artifacts/*/tensors.json", lie_in_json, ("tensors.json",)),
        ("artifacts/*/seal.json", break_json, ("seal.json: cannot be read",)),
        ("artifacts/*/seal.json", Path.unlink, ("seal.json: is missing",)),
        ("prepared/*/*.onnx", truncate, (".onnx", "bytes instead of")),
        ("prepared/*/*.onnx", alter, (".onnx: is not what was sealed",)),
        ("prepared/*/weights.bin", alter, ("weights.bin: is not what was sealed",)),
        ("prepared/*/prepared.json", break_json, ("prepared.json", "bytes instead of")),
    ],
)
def test_a_broken_file_of_the_cache(
    bench: Bench, measured: Path, files: str, harm: Callable[[Path], None], says: tuple[str, ...]
) -> None:
    found = sorted((measured / "cache").glob(files))
    assert found, "the layout of the cache changed"
    harm(found[0])
    ended = bench(*TINY_SWEEP, results=measured / "new")
    assert ended.code == 3, ended.err
    assert "Traceback" not in ended.err
    assert [record.status for record in ended.records] == ["failed"]
    (line,) = [line for line in ended.err.splitlines() if line.startswith("failed: ")]
    for text in (*says, f"`bench cache prune {found[0].parent.name}` removes it"):
        assert text in line
    verified = bench("cache", "verify")
    assert verified.code == 3
    assert found[0].parent.name in verified.out and "1 broken of 3" in verified.err


@pytest.mark.parametrize("files", ["artifacts/*/model.gguf", "prepared/*/*.onnx"])
def test_the_remedy_mends_it(bench: Bench, measured: Path, files: str) -> None:
    truncate(next((measured / "cache").glob(files)))
    (remedy,) = re.findall("`bench (.*)` removes it", bench("cache", "verify").out)
    removed = bench(*remedy.split())
    assert removed.code == 0 and removed.out.count("\n") == 1, "that one and no other"
    assert bench("cache", "verify").code == 0
    assert bench(*TINY_SWEEP, results=measured / "new").statuses == {"tg4": "ok"}


def test_a_reference_or_certificate_that_was_altered_is_made_again(bench: Bench, measured: Path) -> None:
    (logits,) = (measured / "cache").glob("artifacts/*/reference/logits.npy")
    alter(logits)
    assert bench("cache", "verify").code == 3
    (certificate,) = (measured / "cache").glob("certificates/*.json")
    break_json(certificate)
    broken = bench("cache", "verify")
    assert certificate.name in broken.out and "2 broken of 3" in broken.err
    ended = bench(*TINY_SWEEP, results=measured / "new")
    assert (ended.code, ended.statuses) == (0, {"tg4": "ok"}), ended.err
    assert bench("cache", "verify").code == 0
    assert json.loads(certificate.read_text())["error"] < 1e-4
