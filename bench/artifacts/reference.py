"""The reference of an artifact: float32 logits of the gate's token ids and the error each class must show."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.api import Artifact, Progress
from bench.artifacts.folders import build_folder
from bench.artifacts.forward import Observe, logit_blocks
from bench.artifacts.noise import CLASSES
from bench.artifacts.reader import open_artifact
from bench.artifacts.seals import check_seal, seal
from bench.artifacts.stored_reference import (
    ERRORS_NAME,
    IDS_NAME,
    LOGITS_NAME,
    PREDICTED_NAME,
    REFERENCE_VERSION,
    SAMPLED,
    Reference,
    load_reference,
    sampled_columns,
)
from bench.errors import PrerequisiteError
from bench.types import Int32

GATE_POSITIONS = 32
_GATE_SEED = 0x4556454E


def gate_ids(artifact: Artifact) -> Int32:
    """[32] the token ids of every gate: seeded, the same everywhere, all different where the vocabulary allows."""
    vocab = artifact.arch.vocab
    raw = np.random.Philox(key=_GATE_SEED).random_raw(64 * GATE_POSITIONS) % np.uint64(vocab)
    first_seen = list(dict.fromkeys(int(i) for i in raw))[:GATE_POSITIONS]
    return np.resize(np.array(first_seen, np.int32), GATE_POSITIONS)


def ensure_reference(artifact_folder: Path, layers: int | None = None, progress: Progress | None = None) -> Path:
    """The folder of the artifact's reference (of its first `layers` layers), computed if it is not there yet.

    `progress` counts weights and is not called for a cached reference. A reference that was altered, or that another
    version of this project computed, is computed again.
    """
    artifact = open_artifact(artifact_folder)
    if layers is not None:
        artifact = artifact.cut(layers)
    final = artifact_folder / ("reference" if layers is None else f"reference-cut{layers}")
    if _current(final, artifact.digest):
        return final
    ids = gate_ids(artifact)
    needed_bytes = 4 * len(ids) * (artifact.arch.vocab + len(CLASSES) * SAMPLED) + (1 << 20)
    with build_folder(final, needed_bytes) as building:
        reference = compute_reference(artifact, ids, CLASSES, progress)
        errors = np.stack([reference.errors[name] for name in CLASSES])
        for name, array in ((IDS_NAME, ids), (LOGITS_NAME, reference.logits), (ERRORS_NAME, errors)):
            _save(building / name, array)
        predicted = {
            "version": REFERENCE_VERSION,
            "digest": reference.digest,
            "centred2": reference.centred2.tolist(),
            "classes": {name: reference.delta2[name].tolist() for name in CLASSES},
        }
        (building / PREDICTED_NAME).write_text(json.dumps(predicted) + "\n", "utf-8")
        seal(building, [IDS_NAME, LOGITS_NAME, ERRORS_NAME, PREDICTED_NAME])
    return final


def compute_reference(
    artifact: Artifact,
    ids: Int32,
    classes: Sequence[str],
    progress: Progress | None = None,
    observe: Observe | None = None,
) -> Reference:
    """The float32 logits of `ids` [positions] and the errors of `classes`, "f32" among them; in memory.

    `progress` counts weights. `observe` is told the first class's keys and values.
    """
    logits = np.empty((len(ids), artifact.arch.vocab), np.float32)
    delta2 = np.zeros((len(classes), len(ids)))
    columns, sampled, start = sampled_columns(artifact.arch.vocab), [], 0
    for block in logit_blocks(artifact, ids, classes, progress=progress, observe=observe):
        exact = block[classes.index("f32")]
        stop = start + exact.shape[-1]
        logits[:, start:stop] = exact
        errors = block - exact
        delta2 += np.square(errors, dtype=np.float64).sum(axis=-1)
        sampled.append(errors[..., columns[(start <= columns) & (columns < stop)] - start])
        start = stop
    centred = logits - logits.mean(axis=-1, keepdims=True, dtype=np.float64)
    return Reference(
        digest=artifact.digest,
        ids=ids,
        logits=logits,
        centred2=np.square(centred).sum(axis=-1),
        delta2=dict(zip(classes, delta2, strict=True)),
        errors=dict(zip(classes, np.concatenate(sampled, axis=-1), strict=True)),
    )


def _save(path: Path, array: npt.NDArray[Any]) -> None:
    """As np.save, whose own writing hides why it failed: a full disk must be told as one."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    path.write_bytes(buffer.getbuffer())


def _current(folder: Path, digest: str) -> bool:
    if not folder.exists():
        return False
    try:
        check_seal(folder)
        return load_reference(folder).digest == digest
    except PrerequisiteError:
        return False
