"""The reference as it is kept beside an artifact, for workers: standard library and numpy only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.errors import PrerequisiteError
from bench.types import Float32, Int32

REFERENCE_VERSION = 5
IDS_NAME, LOGITS_NAME, ERRORS_NAME, PREDICTED_NAME = "ids.npy", "logits.npy", "errors.npy", "predicted.json"
SAMPLED = 512
"""Columns of the vocabulary whose predicted errors are kept, to compare directions with."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """Float32 logits of fixed token ids, and the squared errors that each precision class must cause.

    `ids` [positions], `logits` [positions, vocab]; per position: `centred2` ‖logits − their mean‖² and `delta2` by
    class id ‖error‖². Predicted relative error of any positions: √(Σ delta2 / Σ centred2). `errors` by class id: the
    predicted errors themselves [positions, columns] at `sampled_columns`. `digest` is the artifact's.
    """

    digest: str
    ids: Int32
    logits: Float32
    centred2: npt.NDArray[np.float64]
    delta2: Mapping[str, npt.NDArray[np.float64]]
    errors: Mapping[str, Float32] = field(default_factory=dict)


def sampled_columns(vocab: int) -> npt.NDArray[np.intp]:
    """Up to 512 columns, evenly spread over the vocabulary."""
    return np.unique(np.linspace(0, vocab - 1, min(SAMPLED, vocab)).astype(np.intp))


def load_reference(folder: Path) -> Reference:
    """Read what `ensure_reference` wrote, the logits as a memory map.

    Raises PrerequisiteError, naming the folder, where anything is missing or does not fit together.
    """
    try:
        predicted = json.loads((folder / PREDICTED_NAME).read_text("utf-8"))
        if predicted["version"] != REFERENCE_VERSION:
            raise ValueError(f"version {predicted['version']} is not {REFERENCE_VERSION}")
        errors = np.load(folder / ERRORS_NAME, allow_pickle=False)
        reference = Reference(
            digest=predicted["digest"],
            ids=np.load(folder / IDS_NAME, allow_pickle=False),
            logits=np.load(folder / LOGITS_NAME, mmap_mode="r", allow_pickle=False),
            centred2=np.array(predicted["centred2"], np.float64),
            delta2={name: np.array(values, np.float64) for name, values in predicted["classes"].items()},
            errors=dict(zip(predicted["classes"], errors, strict=True)),
        )
        _check_shapes(reference)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PrerequisiteError(
            "cannot be read as a reference",
            where=str(folder),
            cause=f"{type(error).__name__}: {error}",
            remedy="remove the folder, then execute `bench prepare`",
        ) from error
    return reference


def _check_shapes(reference: Reference) -> None:
    positions = reference.ids.shape
    shapes = {reference.centred2.shape, *(values.shape for values in reference.delta2.values())}
    if len(positions) != 1 or shapes != {positions} or reference.ids.dtype != np.int32:
        raise ValueError("the numbers of positions differ")
    if reference.logits.ndim != 2 or reference.logits.shape[:1] != positions or reference.logits.dtype != np.float32:
        raise ValueError(f"logits are {reference.logits.dtype} {list(reference.logits.shape)}")
    sampled = (*positions, len(sampled_columns(reference.logits.shape[-1])))
    if {errors.shape for errors in reference.errors.values()} != {sampled}:
        raise ValueError(f"sampled errors are not {list(sampled)}")
