"""Writing a synthetic artifact: GGUF header, then every tensor streamed to its place by a few processes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import gguf

from bench.api import CodeScheme, Progress
from bench.artifacts.layout import (
    FORMAT_VERSION,
    GGUF_NAME,
    STORED_TYPES,
    TABLE_NAME,
    TensorSpec,
    arch_to_json,
    artifact_digest,
    tensor_specs,
)
from bench.artifacts.reader import StoredTensor
from bench.artifacts.tokenizer import build_vocabulary
from bench.artifacts.weights import TensorRecipe
from bench.types import Arch

ALIGNMENT = 32
MAX_PROCESSES = 8
INLINE_BYTES = 64 << 20  # below this, starting processes takes longer than writing

_GGUF_TYPES: dict[CodeScheme, gguf.GGMLQuantizationType] = {
    "int8": gguf.GGMLQuantizationType.Q8_0,
    "int4": gguf.GGMLQuantizationType.Q4_0,
    "f16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "f32": gguf.GGMLQuantizationType.F32,
}
_FILE_TYPES = {
    "int8": gguf.LlamaFileType.MOSTLY_Q8_0,
    "int4": gguf.LlamaFileType.MOSTLY_Q4_0,
    "fp16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
}


@dataclass(frozen=True, slots=True)
class WrittenArtifact:
    """Where the parts of the GGUF lie: (offset, bytes, sha256) of the header and of each tensor; and the digest."""

    digest: str
    parts: tuple[tuple[int, int, str], ...]


def artifact_bytes(arch: Arch, scheme: str) -> int:
    """Upper bound of what `synthesize` writes, from the architecture alone."""
    specs = tensor_specs(arch, scheme)
    return sum(_aligned(spec.bytes) for spec in specs) + 512 * len(specs) + 64 * arch.vocab + (1 << 16)


def synthesize(
    into: Path,
    *,
    model: str,
    arch: Arch,
    scheme: str,
    seed: int = 0,
    processes: int | None = None,
    progress: Progress | None = None,
) -> WrittenArtifact:
    """Write `model.gguf` and `tensors.json` into the folder `into`; the same bits on every machine.

    `progress` counts bytes. Nothing is synced: the caller commits the folder. OSError where the disk is full.
    """
    path = into / GGUF_NAME
    specs = tensor_specs(arch, scheme)
    header_bytes = _write_header(path, model, arch, scheme, specs)
    offsets, end = [], header_bytes
    for spec in specs:
        offsets.append(end)
        end += _aligned(spec.bytes)
    with path.open("r+b") as file:
        _reserve(file.fileno(), end)
    jobs = [
        _Job(path, offset, TensorRecipe(arch=arch, model=model, seed=seed, spec=spec))
        for spec, offset in zip(specs, offsets, strict=True)
    ]
    digests = _write_tensors(jobs, processes, progress)
    stored = [StoredTensor(spec, at, digests[spec.name]) for spec, at in zip(specs, offsets, strict=True)]
    digest = artifact_digest(arch, scheme, [(tensor.spec, tensor.digest) for tensor in stored])
    _write_table(into / TABLE_NAME, model, arch, scheme, seed, end, digest, stored)
    header = hashlib.sha256(_head(path, header_bytes)).hexdigest()
    parts = ((0, header_bytes, header), *((t.offset, t.spec.bytes, t.digest) for t in stored))
    return WrittenArtifact(digest, parts)


@dataclass(frozen=True, slots=True)
class _Job:
    path: Path
    offset: int
    recipe: TensorRecipe


def _write_tensor(job: _Job) -> tuple[str, str]:
    """Stream one tensor to its place; its name and the sha256 of its bytes."""
    sha = hashlib.sha256()
    with job.path.open("r+b", buffering=0) as file:
        file.seek(job.offset)
        for chunk in job.recipe.chunks():
            sha.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[file.write(view) :]
    return job.recipe.spec.name, sha.hexdigest()


def _write_tensors(jobs: Sequence[_Job], processes: int | None, progress: Progress | None) -> dict[str, str]:
    total = sum(job.recipe.spec.bytes for job in jobs)
    sizes = {job.recipe.spec.name: job.recipe.spec.bytes for job in jobs}
    done, digests = 0, {}
    for name, digest in _finished(jobs, 1 if total < INLINE_BYTES and processes is None else processes):
        digests[name] = digest
        done += sizes[name]
        if progress:
            progress(done, total)
    return digests


def _finished(jobs: Sequence[_Job], processes: int | None) -> Iterator[tuple[str, str]]:
    count = processes or min(MAX_PROCESSES, len(os.sched_getaffinity(0)))
    if count == 1:
        yield from map(_write_tensor, jobs)
        return
    # Largest first, so that no process is left alone with the embedding at the end.
    ordered = sorted(jobs, key=lambda job: -job.recipe.spec.bytes)
    with _pool(count) as pool:
        yield from (future.result() for future in as_completed(pool.submit(_write_tensor, job) for job in ordered))


@contextmanager
def _pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes (the parent may have threads), whose unstarted work is dropped when one of them fails."""
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _write_header(path: Path, model: str, arch: Arch, scheme: str, specs: Sequence[TensorSpec]) -> int:
    """Everything before the tensors, padded; its size in bytes."""
    writer = gguf.GGUFWriter(path, arch.family)
    writer.add_name(model)
    writer.add_file_type(_FILE_TYPES[scheme])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(arch.context)
    writer.add_embedding_length(arch.hidden)
    writer.add_block_count(arch.layers)
    writer.add_feed_forward_length(arch.ffn)
    writer.add_head_count(arch.heads)
    writer.add_head_count_kv(arch.kv_heads)
    writer.add_key_length(arch.head_dim)
    writer.add_value_length(arch.head_dim)
    writer.add_rope_dimension_count(arch.head_dim)
    writer.add_rope_freq_base(arch.rope_theta)
    writer.add_layer_norm_rms_eps(arch.norm_eps)
    writer.add_vocab_size(arch.vocab)
    _add_vocabulary(writer, arch)
    for spec in specs:
        dtype = STORED_TYPES[spec.scheme]
        writer.add_tensor_info(spec.name, spec.shape, dtype, spec.bytes, raw_dtype=_GGUF_TYPES[spec.scheme])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    size = _aligned(path.stat().st_size)
    os.truncate(path, size)
    return size


def _add_vocabulary(writer: gguf.GGUFWriter, arch: Arch) -> None:
    vocabulary = build_vocabulary(arch.vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe" if arch.family == "llama" else "qwen2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.bos_id)
    writer.add_eos_token_id(vocabulary.eos_id)
    writer.add_add_bos_token(False)


def _write_table(
    path: Path,
    model: str,
    arch: Arch,
    scheme: str,
    seed: int,
    gguf_bytes: int,
    digest: str,
    stored: Sequence[StoredTensor],
) -> None:
    content = {
        "version": FORMAT_VERSION,
        "model": model,
        "weights": "synthetic",
        "seed": seed,
        "scheme": scheme,
        "arch": arch_to_json(arch),
        "digest": digest,
        "gguf_bytes": gguf_bytes,
        "tensors": [
            {
                "name": tensor.spec.name,
                "scheme": tensor.spec.scheme,
                "shape": list(tensor.spec.shape),
                "permuted_heads": tensor.spec.permuted_heads,
                "offset": tensor.offset,
                "bytes": tensor.spec.bytes,
                "digest": tensor.digest,
            }
            for tensor in stored
        ],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def _reserve(descriptor: int, size: int) -> None:
    """Claim the disk space now, so that a full disk is found before the work is done."""
    os.posix_fallocate(descriptor, 0, size)


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
