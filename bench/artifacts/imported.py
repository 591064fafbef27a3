"""Weights from a file: a published GGUF as it is. Nobody here can compute its reference, so nothing of it is gated."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from bench.api import Codes, Progress
from bench.artifacts.gguf_file import Header, read_header
from bench.errors import UsageError
from bench.types import Arch, Family

CHUNK_BYTES = 16 << 20
DEFAULT_ROPE_THETA = 10_000.0
"""llama.cpp's where a file does not say."""
NOT_IN_A_NAME = re.compile(r"[^a-z0-9.]+")
FILE_TYPES = {
    0: "f32",
    1: "f16",
    2: "q4_0",
    3: "q4_1",
    7: "q8_0",
    8: "q5_0",
    9: "q5_1",
    10: "q2_k",
    11: "q3_k_s",
    12: "q3_k_m",
    13: "q3_k_l",
    14: "q4_k_s",
    15: "q4_k_m",
    16: "q5_k_s",
    17: "q5_k_m",
    18: "q6_k",
    19: "iq2_xxs",
    20: "iq2_xs",
    21: "q2_k_s",
    22: "iq3_xs",
    23: "iq3_xxs",
    24: "iq1_s",
    25: "iq4_nl",
    26: "iq3_s",
    27: "iq3_m",
    28: "iq2_s",
    29: "iq2_m",
    30: "iq4_xs",
    31: "iq1_m",
    32: "bf16",
    36: "tq1_0",
    37: "tq2_0",
    38: "mxfp4_moe",
    39: "nvfp4",
    40: "q1_0",
}
"""`general.file_type` (llama.h, enum llama_ftype) as the files are called by their makers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A file that holds a model; implements what an adapter's `prepare` may ask of bench.api.Artifact."""

    gguf: Path
    scheme: str
    arch: Arch
    digest: str = ""

    def names(self) -> Sequence[str]:
        """None: nothing of it is read here."""
        return ()

    def tensor(self, name: str) -> Codes:
        raise KeyError(name)

    def inv_freq(self) -> npt.NDArray[np.float64]:
        raise KeyError("rotary frequencies of a file are the runtime's affair")

    def cut(self, layers: int) -> Weights:
        raise ValueError("a file of others cannot be cut")


def open_weights(path: Path) -> Weights:
    """What the file's header says of its model; UsageError where it is no GGUF of a language model."""
    header = read_header(path)
    if int(header.metadata.get("split.count") or 1) > 1:
        remedy = "join them with llama.cpp's llama-gguf-split --merge"
        raise UsageError("is one part of a model", where=str(path), cause="parts are not wired", remedy=remedy)
    kind = header.metadata.get("general.file_type")
    scheme = FILE_TYPES.get(kind, f"gguf{kind}") if isinstance(kind, int) else "gguf"
    return Weights(gguf=path.absolute(), scheme=scheme, arch=_arch(path, header))


def model_name(path: Path, scheme: str) -> str:
    """The file's own name in small letters, without its scheme: `DeepSeek-R1-Q4_K_M.gguf` is `deepseek-r1`."""
    bare = re.sub(rf"[-_.]*{re.escape(scheme)}$", "", path.stem.lower())
    return NOT_IN_A_NAME.sub("-", bare).strip("-.") or "model"


def file_digest(path: Path, kept: Path, progress: Progress) -> str:
    """sha256 of the file, kept beside the cache under `kept` as long as size, time and inode stay as they are."""
    status = path.stat()
    here = [str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino]
    note = kept / f"{hashlib.sha256(json.dumps(here).encode()).hexdigest()[:32]}.json"
    try:
        return str(json.loads(note.read_bytes())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not known yet
    found, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found.update(chunk)
            done += len(chunk)
            progress(done, status.st_size)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps({"file": here, "sha256": found.hexdigest()}))
    return found.hexdigest()


def _arch(path: Path, header: Header) -> Arch:
    """The numbers that a plan needs: sizes and lengths. What llama.cpp computes it reads from the file itself."""
    told = header.metadata
    family = told.get("general.architecture")
    if not isinstance(family, str) or not isinstance(told.get(f"{family}.block_count"), int):
        raise UsageError(
            "holds no language model",
            where=str(path),
            cause="its metadata names no architecture with layers",
            remedy="name the first file of a model",
        )

    def number(key: str, default: Any = None) -> Any:
        value = told.get(f"{family}.{key}", default)
        if isinstance(value, list):
            value = max(value, default=None)
        if not isinstance(value, int | float) or value <= 0:
            raise UsageError(f"{family}.{key} is {value!r}", where=str(path), cause="damaged or of an unknown kind")
        return value

    heads, hidden = int(number("attention.head_count")), int(number("embedding_length"))
    return Arch(
        family=cast(Family, family),
        layers=int(number("block_count")),
        hidden=hidden,
        heads=heads,
        kv_heads=int(number("attention.head_count_kv", heads)),
        head_dim=int(number("attention.key_length", max(1, hidden // heads))),
        ffn=int(number("feed_forward_length", told.get(f"{family}.expert_feed_forward_length"))),
        vocab=_vocab(path, header, family),
        context=int(number("context_length")),
        rope_theta=float(number("rope.freq_base", DEFAULT_ROPE_THETA)),
        norm_eps=float(number("attention.layer_norm_rms_epsilon", told.get(f"{family}.attention.layer_norm_epsilon"))),
        tied="output.weight" not in header.tensors,
    )


def _vocab(path: Path, header: Header, family: str) -> int:
    """Rows of the embedding: what logits have, whatever the tokenizer's list says."""
    shape = header.tensors.get("token_embd.weight")
    if shape is not None and len(shape) == 2:
        return shape[1]
    told = header.metadata.get("tokenizer.ggml.tokens", header.metadata.get(f"{family}.vocab_size"))
    count = len(told) if isinstance(told, list) else told
    if not isinstance(count, int) or count <= 0:
        raise UsageError("has no embedding table", where=str(path), cause="not the first file of a split model?")
    return count
