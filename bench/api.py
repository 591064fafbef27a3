"""The contract between the harness and an adapter, and what an adapter is handed.

An adapter imports from this project only `bench.api`, `bench.facts`, `bench.types`, `bench.errors` and `bench.units`.
Importing its module loads no runtime: `probe`, `prepare` and `open` do. It contains no timing, printing, retries,
tokenization or changes of the environment. The harness owns the clock and decides which token ids go in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from bench.errors import CaseError
from bench.facts import MemoryUse, SessionFacts
from bench.types import (
    Arch,
    Availability,
    Case,
    Float32,
    Int32,
    LoadGroup,
    Option,
    Prepared,
    Requirements,
    Sample,
    Support,
)

GROUP = 32
"""Codes that share a scale in every quantized scheme of the canonical file."""

Q8_BLOCK = np.dtype([("scale", "<f2"), ("codes", "i1", (GROUP,))])
Q4_BLOCK = np.dtype([("scale", "<f2"), ("codes", "u1", (GROUP // 2,))])
"""ggml's Q8_0 and Q4_0. A Q4_0 byte holds code j in its low and code j + 16 in its high half, both offset by 8."""

CodeScheme = Literal["int8", "int4", "f16", "bf16", "f32"]
Progress = Callable[[int, int], None]
"""Called with (done, total) in any unit; adapters call it, the harness decides what to show."""


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """One tensor: integer codes with a float16 scale per 32, or plain numbers; usually a memory map.

    `data` is [rows, cols / 32] of Q8_BLOCK or Q4_BLOCK for int8 and int4; [rows, cols] (or [n] for norms and biases) of
    float16, uint16 (the bits of bf16) or float32 otherwise. `order` re-orders rows on reading (un-permuted Q and K).
    All readers take a range of rows, so that nobody needs a whole tensor in memory.
    """

    scheme: CodeScheme
    data: npt.NDArray[Any]
    order: npt.NDArray[np.intp] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        if self.scheme in ("int8", "int4"):
            return self.data.shape[0], self.data.shape[1] * GROUP
        return self.data.shape

    def stored(self, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Rows as they lie in the file (blocks or plain numbers), in reading order."""
        return self.data[start:stop] if self.order is None else self.data[self.order[start:stop]]

    def codes(self, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """int8 [rows, cols]: −127..127 for int8, −8..7 for int4; the plain numbers for other schemes."""
        rows = self.stored(start, stop)
        if self.scheme == "int8":
            return np.ascontiguousarray(rows["codes"]).reshape(rows.shape[0], -1)
        if self.scheme == "int4":
            packed = rows["codes"]
            out = np.concatenate([packed & 15, packed >> 4], axis=-1).astype(np.int8)
            out -= 8
            return out.reshape(rows.shape[0], -1)
        return rows

    def scales(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.float16]:
        """float16 [rows, cols / 32]; for `int8` all scales of a row are equal."""
        if self.scheme not in ("int8", "int4"):
            raise ValueError(f"a {self.scheme} tensor has no scales")
        return np.ascontiguousarray(self.stored(start, stop)["scale"])

    def values(self, start: int = 0, stop: int | None = None) -> Float32:
        """float32: code × scale, or the plain number; exact in every scheme."""
        if self.scheme in ("int8", "int4"):
            codes = self.codes(start, stop).astype(np.float32)
            blocks = codes.reshape(codes.shape[0], -1, GROUP)
            blocks *= self.scales(start, stop).astype(np.float32)[:, :, None]
            return codes
        rows = self.stored(start, stop)
        if self.scheme == "bf16":
            return (rows.astype(np.uint32) << 16).view(np.float32)
        return rows.astype(np.float32)

    @classmethod
    def dense(cls, scheme: CodeScheme, codes: npt.NDArray[Any], scales: npt.NDArray[np.float16] | None = None) -> Codes:
        """From what a runtime holds: int8 [rows, cols] and float16 [rows, cols / 32], or plain numbers."""
        if scheme not in ("int8", "int4"):
            return cls(scheme, codes)
        if scales is None:
            raise ValueError(f"{scheme} needs scales")
        rows, groups = codes.shape[0], codes.reshape(codes.shape[0], -1, GROUP)
        data = np.empty((rows, groups.shape[1]), Q8_BLOCK if scheme == "int8" else Q4_BLOCK)
        data["scale"] = scales
        if scheme == "int8":
            data["codes"] = groups
        else:
            offset = (groups + 8).astype(np.uint8)
            data["codes"] = offset[..., : GROUP // 2] | (offset[..., GROUP // 2 :] << 4)
        return cls(scheme, data)

    def same_bits(self, other: Codes, rows_at_once: int = 4096) -> bool:
        """Whether codes and scales are equal bit by bit, in bounded memory."""
        if (self.scheme, self.shape) != (other.scheme, other.shape):
            return False
        return all(
            self.stored(start, start + rows_at_once).tobytes() == other.stored(start, start + rows_at_once).tobytes()
            for start in range(0, self.shape[0], rows_at_once)
        )


class Artifact(Protocol):
    """The canonical model, read-only; what every adapter shares.

    Tensor names are GGUF's: token_embd.weight, blk.N.{attn_norm,attn_q,attn_k,attn_v,attn_output,ffn_norm,ffn_gate,
    ffn_up,ffn_down}.weight, blk.N.attn_{q,k,v}.bias (qwen2), blk.N.attn_{q,k}_norm.weight (qwen3), output_norm.weight,
    output.weight (absent where the embedding is tied). Rows of Q and K are in half-split order (rotate first half
    against second half), whatever order the file keeps them in.
    """

    @property
    def arch(self) -> Arch: ...
    @property
    def scheme(self) -> str: ...
    @property
    def digest(self) -> str:
        """Hex digest of codes, scales, norms, biases and architecture numbers."""

    @property
    def gguf(self) -> Path:
        """The canonical file itself, for runtimes that read GGUF."""

    def names(self) -> Sequence[str]:
        """Tensor names in the order of the graph."""

    def tensor(self, name: str) -> Codes: ...

    def inv_freq(self) -> npt.NDArray[np.float64]:
        """[head_dim / 2] rotary frequencies, scaling applied: angle = position × inv_freq."""

    def cut(self, layers: int) -> Artifact:
        """The same codes with only the first `layers` layers."""


class Session(Protocol):
    """A loaded model with a KV cache, and one verb."""

    def step(self, token_ids: Int32, want: Literal["last", "all"] = "last") -> Int32:
        """One forward pass over `token_ids` [rows, n], appended to the cache: n > 1 is prefill, n = 1 decode.

        Returns the greedy next ids [rows], Python-visible on the host: nothing is left to wait for. rows is at most
        the load group's batch and stays the same until `rewind(0)`. `want` says for which positions `logits` will be
        asked.
        """

    def logits(self) -> Float32:
        """Of the last step: [rows, vocab], or [rows, n, vocab] after want="all"."""

    def rewind(self, length: int) -> bool:
        """Keep the first `length` tokens. 0 empties the cache and always succeeds; False = cannot, prefill again."""

    def facts(self) -> SessionFacts:
        """What really happens, read back from the runtime. May need a step to have been executed."""

    def memory(self) -> list[MemoryUse]: ...

    def fed(self, tensor: str) -> Codes | None:
        """Codes and scales read back from what the runtime was given; None where that cannot be read."""

    def close(self) -> None:
        """Release everything; a second call does nothing."""


class Mover(Protocol):
    """Moves a known number of bytes through a device's own memory: what its bandwidth is probed with."""

    kind: str
    """Of the device, as SessionFacts.devices calls it."""
    moved_bytes: int
    """Read and written by one `move`; far more than the device's caches hold."""

    def move(self) -> None:
        """Once; returns when the device is done. The harness holds the clock."""

    def close(self) -> None: ...


class Backend(Protocol):
    """One runtime on one family of devices."""

    name: str
    """Equals the entry point's name."""
    builder: int
    """Version of what `prepare` writes; raising it makes every prepared folder stale."""
    computes: bool
    """False for a backend that executes no model: nothing is prepared or gated and its records are `unproven`."""
    provider: str | None
    """The execution provider that is asked for where none is named; None for a runtime that has no providers."""
    providers: Mapping[str, str]
    """Full names of the providers that it knows, by all that people call them, in lower case. Another name is taken as
    it is. Only looked at where `provider` is not None."""
    options: Mapping[str, Option]
    """What `--set` takes, by name; `NAME.*` for all that begin so."""

    def probe(self) -> Availability:
        """What is installed and present here; never raises."""

    def requirements(self, accelerator: str | None) -> Requirements:
        """What `bench setup` installs; UsageError, with those it knows, for an unknown accelerator."""

    def support(self, case: Case) -> Support:
        """Pure and total: decided from the case alone, without the runtime."""

    def resident_ratio(self, case: Case) -> float:
        """Bytes of weights that the runtime holds in memory once loaded, per byte of the canonical file.

        Pure, decided from the case alone; 0.0 for a backend without a model. The plan's memory stands on it.
        """

    def environment(self, case: Case) -> Mapping[str, str]:
        """Variables that a worker for `case` is started with: what a runtime reads before an adapter could set it.

        Asked in the parent, without the runtime, before anything is prepared. PrerequisiteError where this machine's
        processor cannot do what is asked.
        """

    def prepare(self, case: Case, artifact: Artifact, into: Path, progress: Progress) -> Prepared:
        """Write into the empty folder `into` what `open` needs, for both fidelities; bounded memory, never timed."""

    def open(self, group: LoadGroup, prepared: Prepared) -> Session:
        """Load. Refuses with PrerequisiteError or CaseError rather than fall back to another device or precision."""

    def mover(self, case: Case) -> Mover | None:
        """For a device with memory of its own; None where what computes reads the host's, which the harness probes."""


@runtime_checkable
class Exporter(Protocol):
    """What a backend offers besides where it can hand its graph to others' compilers; no backend needs to."""

    def export_support(self, case: Case) -> Support:
        """Pure and total: whether the model of `case` can be written so, decided without the runtime."""

    def export_bytes(self, case: Case) -> int:
        """About what the disk must give meanwhile; pure."""

    def export(self, case: Case, artifact: Artifact, sample: Sample, into: Path, progress: Progress) -> None:
        """Write into the empty folder `into` all that others need and, from `sample`, what they check it with.

        The graph fits `case`: its batch, its chunks, `kv_capacity` positions of cache. Bounded memory.
        """


def row_ranges(rows: int, row_bytes: int, at_once_bytes: int = 64 << 20) -> Iterator[tuple[int, int]]:
    """Ranges of rows of about `at_once_bytes`, for streaming a tensor."""
    step = max(1, at_once_bytes // max(1, row_bytes))
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def stored_blocks(tensors: Iterable[Codes]) -> Iterator[npt.NDArray[Any]]:
    """The tensors' rows one after the other, as the artifact stores them, some at a time."""
    for tensor in tensors:
        for start, stop in row_ranges(tensor.shape[0], tensor.data.nbytes // tensor.shape[0]):
            yield tensor.stored(start, stop)


def check_step(shape: tuple[int, int], length: int, batch: int, capacity: int) -> None:
    """CaseError where `shape` (rows, tokens) after `length` tokens does not fit a cache of `batch` × `capacity`."""
    rows, count = shape
    if not 0 < rows <= batch or count < 1 or length + count > capacity:
        raise CaseError(
            f"{rows} rows of {count} tokens after {length} do not fit",
            phase="step",
            cause=f"the cache holds {batch} rows of {capacity} tokens",
        )


def check_same_rows(rows: int, began: int, length: int) -> None:
    """CaseError where other rows go on than those that the cache holds `length` tokens of."""
    if length and rows != began:
        raise CaseError(f"{rows} rows go on where {began} began", phase="step", remedy="rewind(0) first")
