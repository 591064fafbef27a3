"""What llama-bench writes: its fields in order, what each holds, and the generations of its schema.

Read from the sources of llama.cpp; docs/llama-bench.md has the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

FORMAT = "llama-bench"

Kind = Literal["text", "count", "int", "flag", "state", "real"]
"""What a field holds. A `flag` is true or false; a `state` was one once and is a number now."""

FIELDS: dict[str, Kind] = {
    "build_commit": "text",
    "build_number": "count",
    "cpu_info": "text",
    "gpu_info": "text",
    "backends": "text",
    "model_filename": "text",
    "model_type": "text",
    "model_size": "count",
    "model_n_params": "count",
    "n_batch": "count",
    "n_ubatch": "count",
    "n_threads": "count",
    "cpu_mask": "text",
    "cpu_strict": "flag",
    "poll": "int",
    "type_k": "text",
    "type_v": "text",
    "n_gpu_layers": "int",
    "n_cpu_moe": "count",
    "split_mode": "text",
    "main_gpu": "int",
    "no_kv_offload": "flag",
    "flash_attn": "state",
    "devices": "text",
    "tensor_split": "text",
    "tensor_buft_overrides": "text",
    "load_mode": "text",
    "lazy_mode": "text",
    "embeddings": "flag",
    "no_op_offload": "state",
    "no_host": "flag",
    "repack": "flag",
    "fit_target": "count",
    "fit_min_ctx": "count",
    "n_prompt": "count",
    "n_gen": "count",
    "n_depth": "count",
    "test_time": "text",
    "avg_ns": "count",
    "stddev_ns": "count",
    "avg_ts": "real",
    "stddev_ts": "real",
}
"""The present generation's, in the order of its source. JSON and JSONL add SAMPLES."""

SAMPLES = ("samples_ns", "samples_ts")

KINDS: dict[str, Kind] = {
    **FIELDS,
    "use_mmap": "flag",
    "use_direct_io": "flag",
    "f16_kv": "flag",
    "mul_mat_q": "flag",
    "blas": "flag",
    "defrag_thold": "real",
}
"""In any generation. G0 has besides a flag for every kind of accelerator that was compiled in."""

MARKS = ("n_prompt", "n_gen", "avg_ts")
"""What tells a row of llama-bench from anything else."""

REQUIRED = (
    *("build_commit", "build_number", "cpu_info", "gpu_info", "model_filename", "model_type", "model_size"),
    *("model_n_params", "n_batch", "n_threads", "n_prompt", "n_gen", "test_time"),
    *("avg_ns", "stddev_ns", "avg_ts", "stddev_ts"),
)
"""In every generation."""

GENERATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("G5", ("lazy_mode", "repack")),
    ("G4", ("load_mode",)),
    ("G3", ("n_cpu_moe", "devices", "no_host", "use_direct_io", "fit_target")),
    ("G2", ("n_depth", "tensor_buft_overrides", "no_op_offload", "defrag_thold")),
    ("G1", ("backends",)),
)
"""Newest first: each generation by the fields that came with it. What has none of them is G0."""

FIGURES = ("test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts", *SAMPLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One test of one invocation, checked. `line` is where it begins; `notation` is json, jsonl or csv."""

    fields: Mapping[str, Any]
    line: int
    notation: str

    @property
    def generation(self) -> str:
        return generation(self.fields)

    @property
    def tokens(self) -> int:
        """What llama-bench divides by the time: prompt and new tokens together, never the depth."""
        tokens: int = self.fields["n_prompt"] + self.fields["n_gen"]
        return tokens


def generation(fields: Mapping[str, Any]) -> str:
    """G0 to G5, by the names of the fields alone."""
    return next((name for name, marks in GENERATIONS if any(mark in fields for mark in marks)), "G0")


def mangled(text: str) -> str:
    """`text` as llama-bench writes it to JSON where characters are signed: each byte beyond ASCII as U+FFFF and f."""
    if text.isascii():
        return text
    return "".join(c if c.isascii() or c == "\uffff" else "\ufffff" * len(c.encode()) for c in text)
