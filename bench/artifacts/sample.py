"""The sample that an exported model is checked with: the gate's token ids, and what the reference makes of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from bench.api import Artifact, Progress
from bench.artifacts.noise import CLASSES, KV8
from bench.artifacts.reference import compute_reference, gate_ids
from bench.types import Float32, Int32, Sample

SAMPLE_NAME = "sample.npz"
SHIFT = 5
"""Each row is the gate's ids, rolled so far against the row before it: rows that are mixed up must show."""
SAMPLE_CLASSES = tuple(name for name in CLASSES if not name.endswith(KV8))
"""Exported caches are never integers."""


def make_sample(artifact: Artifact, rows: int, positions: int, progress: Progress | None = None) -> Sample:
    """The first `positions` of the gate's ids in `rows` rows, each computed by a pass of its own; in memory."""
    ids = np.stack([np.roll(gate_ids(artifact), SHIFT * row)[:positions] for row in range(rows)])
    made = [_row(artifact, ids[row], _share(progress, row, rows)) for row in range(rows)]
    return Sample(
        ids=ids,
        logits=np.stack([row.logits[0] for row in made]),
        keys=np.concatenate([row.keys for row in made], axis=1),
        values=np.concatenate([row.values for row in made], axis=1),
        centred2=np.concatenate([row.centred2 for row in made]),
        delta2={name: np.concatenate([row.delta2[name] for row in made]) for name in SAMPLE_CLASSES},
    )


def save_sample(sample: Sample, folder: Path) -> None:
    """Write it where `load_sample` finds it."""
    buffer = io.BytesIO()  # np.savez's own writing hides why it failed
    classes = {f"delta2/{name}": values for name, values in sample.delta2.items()}
    names = ("ids", "logits", "keys", "values", "centred2")
    np.savez(buffer, **{name: getattr(sample, name) for name in names}, **classes)  # type: ignore[arg-type]
    (folder / SAMPLE_NAME).write_bytes(buffer.getbuffer())


def load_sample(folder: Path) -> Sample:
    """The inverse of `save_sample`."""
    with np.load(folder / SAMPLE_NAME, allow_pickle=False) as held:
        arrays = dict(held.items())
    delta2 = {name: arrays.pop(f"delta2/{name}") for name in SAMPLE_CLASSES}
    return Sample(**arrays, delta2=delta2)


def _row(artifact: Artifact, ids: Int32, progress: Progress | None) -> Sample:
    """The sample of one row."""
    shape = (artifact.arch.layers, 1, len(ids), artifact.arch.kv_heads, artifact.arch.head_dim)
    keys, values = np.empty(shape, np.float32), np.empty(shape, np.float32)

    def keep(layer: int, key: Float32, value: Float32) -> None:
        keys[layer, 0], values[layer, 0] = key, value

    found = compute_reference(artifact, ids, SAMPLE_CLASSES, progress, keep)
    return Sample(
        ids=ids[None],
        logits=found.logits[None],
        keys=keys,
        values=values,
        centred2=found.centred2[None],
        delta2={name: delta2[None] for name, delta2 in found.delta2.items()},
    )


def _share(progress: Progress | None, row: int, rows: int) -> Progress | None:
    """`progress` over all rows, for the pass of one of them."""
    if progress is None:
        return None
    return lambda done, total: progress(row * total + done, rows * total)
