"""Weights from a file: what its header says, how it is called, and what damaged ones say instead of a traceback."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from bench.artifacts import imported
from bench.artifacts.gguf_file import KEPT, read_header
from bench.artifacts.imported import file_digest, model_name, open_weights
from bench.artifacts.synthesize import synthesize
from bench.errors import UsageError
from tests.tiny import tiny_arch

UINT32, FLOAT32, STRING, ARRAY = 4, 6, 8, 9
NUMBERS = {"block_count": 2, "embedding_length": 64, "attention.head_count": 4, "context_length": 128}


@pytest.fixture(scope="module")
def canonical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("canonical")
    synthesize(folder, model="small", arch=tiny_arch("qwen2", tied=True), scheme="int4", processes=1)
    return folder / "model.gguf"


def text(words: str) -> bytes:
    return struct.pack("<Q", len(words.encode())) + words.encode()


def written(
    path: Path, pairs: dict[str, tuple[int, bytes]], tensors: dict[str, tuple[int, ...]], version: int = 3
) -> Path:
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    out += b"".join(text(key) + struct.pack("<I", kind) + value for key, (kind, value) in pairs.items())
    for name, shape in tensors.items():
        out += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, 0)
    path.write_bytes(out)
    return path


def model(path: Path, **changes: int | None) -> Path:
    """A small file of an architecture that nobody here knows."""
    numbers = {**NUMBERS, "feed_forward_length": 96, **changes}
    pairs = {"general.architecture": (STRING, text("odd")), "general.file_type": (UINT32, struct.pack("<I", 15))}
    pairs |= {f"odd.{key}": (UINT32, struct.pack("<I", value)) for key, value in numbers.items() if value is not None}
    pairs["odd.attention.layer_norm_rms_epsilon"] = (FLOAT32, struct.pack("<f", 1e-5))
    return written(path, pairs, {"token_embd.weight": (64, 777)})


def test_the_projects_own_files_read_as_what_they_are(canonical: Path) -> None:
    found, arch = open_weights(canonical), tiny_arch("qwen2", tied=True)
    assert found.scheme == "q4_0"
    assert (found.arch.family, found.arch.layers, found.arch.vocab) == ("qwen2", arch.layers, arch.vocab)
    assert (found.arch.kv_heads, found.arch.head_dim, found.arch.ffn) == (arch.kv_heads, arch.head_dim, arch.ffn)
    assert (found.arch.tied, found.arch.rope_theta) == (True, arch.rope_theta)
    assert found.arch.norm_eps == pytest.approx(arch.norm_eps)


def test_an_unknown_architecture_still_has_sizes(tmp_path: Path) -> None:
    found = open_weights(model(tmp_path / "odd.gguf"))
    assert (found.scheme, found.arch.family, found.arch.vocab, found.arch.tied) == ("q4_k_m", "odd", 777, True)
    assert (found.arch.kv_heads, found.arch.head_dim, found.arch.rope_theta) == (4, 16, 10_000.0)


@pytest.mark.parametrize("missing", sorted({*NUMBERS, "feed_forward_length"}))
def test_a_missing_number_is_named(tmp_path: Path, missing: str) -> None:
    with pytest.raises(UsageError, match=rf"odd\.{missing}|no architecture with layers"):
        open_weights(model(tmp_path / "odd.gguf", **{missing: None}))


def test_numbers_by_layer_count_with_their_largest(tmp_path: Path) -> None:
    heads = struct.pack("<IQ3I", UINT32, 3, 2, 8, 4)
    path = model(tmp_path / "odd.gguf")
    pairs = {f"odd.{key}": (UINT32, struct.pack("<I", value)) for key, value in NUMBERS.items()}
    pairs |= {"general.architecture": (STRING, text("odd")), "odd.feed_forward_length": (UINT32, struct.pack("<I", 9))}
    pairs["odd.attention.layer_norm_epsilon"] = (FLOAT32, struct.pack("<f", 1e-5))
    pairs["odd.attention.head_count_kv"] = (ARRAY, heads)
    written(path, pairs, {"token_embd.weight": (64, 7), "output.weight": (64, 7)})
    found = open_weights(path)
    assert (found.arch.kv_heads, found.arch.tied, found.scheme) == (8, False, "gguf")


def test_long_arrays_and_texts_are_counted_not_kept(tmp_path: Path) -> None:
    many = struct.pack("<IQ", UINT32, KEPT + 1) + bytes(4 * (KEPT + 1))
    words = struct.pack("<IQ", STRING, 3) + text("a") + text("") + text("ccc")
    path = written(tmp_path / "a.gguf", {"many": (ARRAY, many), "words": (ARRAY, words)}, {})
    assert read_header(path).metadata == {"many": KEPT + 1, "words": 3}


def test_a_file_cut_anywhere_says_so(canonical: Path, tmp_path: Path) -> None:
    whole = model(tmp_path / "odd.gguf").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        with pytest.raises(UsageError) as caught:
            read_header(tmp_path / "cut.gguf")
        assert "cut.gguf" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>", "does not begin with the letters GGUF"),
        (b"GGUF" + struct.pack("<I", 1), "version 1"),
        (b"GGUF" + struct.pack(">I", 3), "version 50331648"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "entries are announced"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62), "bytes are announced"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", 77), "no kind of value 77"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 9, 1), "arrays of arrays"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<I", 9), "9 dimensions"),
    ],
)
def test_what_is_damaged_is_said(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "bad.gguf").write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_header(tmp_path / "bad.gguf")


def test_parts_of_a_model_are_refused_with_what_joins_them(tmp_path: Path) -> None:
    path = written(tmp_path / "m-00001-of-00002.gguf", {"split.count": (UINT32, struct.pack("<I", 2))}, {})
    with pytest.raises(UsageError, match="llama-gguf-split --merge"):
        open_weights(path)


@pytest.mark.parametrize(
    ("file", "scheme", "name"),
    [
        ("DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf", "q4_k_m", "deepseek-r1-distill-qwen-7b"),
        ("smollm2.Q8_0.gguf", "q8_0", "smollm2"),
        ("模型.gguf", "q8_0", "model"),
        ("My Model (v2).gguf", "f16", "my-model-v2"),
    ],
)
def test_a_file_gives_its_model_a_name(file: str, scheme: str, name: str) -> None:
    assert model_name(Path(file), scheme) == name


def test_a_digest_is_computed_once_and_again_for_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, told = tmp_path / "a.gguf", []
    file.write_bytes(b"x" * 100)
    first = file_digest(file, tmp_path / "kept", lambda done, total: told.append((done, total)))
    assert told == [(100, 100)]
    monkeypatch.setattr(imported, "CHUNK_BYTES", -1)  # nothing is read again
    assert file_digest(file, tmp_path / "kept", lambda done, total: told.append((done, total))) == first
    monkeypatch.undo()
    file.write_bytes(b"y" * 100)
    assert file_digest(file, tmp_path / "kept", lambda done, total: None) != first
