"""Reading an artifact with nothing but json and numpy.memmap: what workers open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.api import GROUP, Codes
from bench.artifacts.layout import (
    FORMAT_VERSION,
    GGUF_NAME,
    ROPE_FACTORS,
    STORED_TYPES,
    TABLE_NAME,
    TensorSpec,
    arch_from_json,
    artifact_digest,
    inv_freq,
    reading_order,
    tensor_specs,
)
from bench.errors import BenchError, PrerequisiteError
from bench.types import Arch

REBUILD = "execute `bench cache prune`, then `bench prepare`"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor, where it lies in the file, and the sha256 of its bytes."""

    spec: TensorSpec
    offset: int
    digest: str


class CanonicalArtifact:
    """The canonical model of one folder; implements bench.api.Artifact over memory maps."""

    def __init__(self, folder: Path, arch: Arch, scheme: str, tensors: Sequence[StoredTensor], layers: int):
        self._folder = folder
        self._scheme = scheme
        self._arch = replace(arch, layers=layers)
        self._layers = layers
        self._whole = (arch, tuple(tensors))
        wanted = {spec.name for spec in tensor_specs(self._arch, scheme)}
        self._tensors = {t.spec.name: t for t in tensors if t.spec.name in wanted}
        self._digest = artifact_digest(self._arch, scheme, [(t.spec, t.digest) for t in self._tensors.values()])

    @property
    def arch(self) -> Arch:
        return self._arch

    @property
    def scheme(self) -> str:
        return self._scheme

    @property
    def digest(self) -> str:
        """Hex digest of codes, scales, norms, biases and architecture numbers; a cut has its own."""
        return self._digest

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def gguf(self) -> Path:
        """The whole file, also for a cut."""
        return self._folder / GGUF_NAME

    def names(self) -> Sequence[str]:
        """Tensor names in the order of the graph, without `rope_freqs.weight`, which `inv_freq` covers."""
        return [name for name in self._tensors if name != ROPE_FACTORS]

    def tensor(self, name: str) -> Codes:
        """A read-only memory map; KeyError for a name that this model does not have."""
        stored = self._tensors[name]
        spec = stored.spec
        grouped = spec.scheme in ("int8", "int4")
        shape = (*spec.shape[:-1], spec.shape[-1] // GROUP) if grouped else spec.shape
        data = np.memmap(self.gguf, STORED_TYPES[spec.scheme], mode="r", offset=stored.offset, shape=shape)
        order = reading_order(spec.shape[0], spec.permuted_heads) if spec.permuted_heads else None
        return Codes(spec.scheme, data, order)

    def inv_freq(self) -> npt.NDArray[np.float64]:
        """[head_dim / 2] rotary frequencies, scaling applied: angle = position × inv_freq."""
        return inv_freq(self._arch)

    def cut(self, layers: int) -> CanonicalArtifact:
        """The same codes with only the first `layers` layers; ValueError where it has fewer."""
        if not 0 < layers <= self._layers:
            raise ValueError(f"cannot cut {self._layers} layers down to {layers}")
        arch, tensors = self._whole
        return CanonicalArtifact(self._folder, arch, self._scheme, tensors, layers)


def open_artifact(folder: Path) -> CanonicalArtifact:
    """Open a folder written by `bench prepare`; nothing is mapped before its bounds are checked.

    Raises PrerequisiteError, naming the file, where it is missing, truncated, altered or of another format.
    """
    table = folder / TABLE_NAME
    try:
        content = json.loads(table.read_text("utf-8"))
        if content["version"] != FORMAT_VERSION:
            raise _unusable(table, f"format {content['version']} is not {FORMAT_VERSION}", "written by another version")
        arch, scheme = arch_from_json(content["arch"]), str(content["scheme"])
        tensors = [_stored(entry) for entry in content["tensors"]]
        gguf_bytes, digest = int(content["gguf_bytes"]), content["digest"]
        expected = tensor_specs(arch, scheme)
    except FileNotFoundError as error:
        raise _unusable(table, "is missing", "never prepared, or pruned") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unusable(table, "cannot be read", f"{type(error).__name__}: {error}") from error
    except BenchError as error:
        raise error if isinstance(error, PrerequisiteError) else _unusable(table, error.what, "altered") from error
    if [t.spec for t in tensors] != expected:
        raise _unusable(table, "does not list the tensors of its own architecture", "altered")
    _check_bounds(folder / GGUF_NAME, gguf_bytes, tensors)
    artifact = CanonicalArtifact(folder, arch, scheme, tensors, arch.layers)
    if artifact.digest != digest:
        raise _unusable(table, "does not match its own digest", "altered")
    return artifact


def _stored(entry: dict[str, Any]) -> StoredTensor:
    spec = TensorSpec(
        name=entry["name"],
        scheme=entry["scheme"],
        shape=tuple(entry["shape"]),
        permuted_heads=entry["permuted_heads"],
    )
    return StoredTensor(spec, int(entry["offset"]), entry["digest"])


def _check_bounds(gguf: Path, expected_bytes: int, tensors: Sequence[StoredTensor]) -> None:
    try:
        actual_bytes = gguf.stat().st_size
    except OSError as error:
        raise _unusable(gguf, "is missing", "removed by hand") from error
    if actual_bytes != expected_bytes:
        raise _unusable(gguf, f"has {actual_bytes} bytes instead of {expected_bytes}", "truncated or altered")
    for tensor in tensors:
        if tensor.offset < 0 or tensor.offset + tensor.spec.bytes > actual_bytes:
            raise _unusable(gguf, f"{tensor.spec.name} lies outside the file", "altered")


def _unusable(path: Path, what: str, cause: str) -> PrerequisiteError:
    return PrerequisiteError(what, where=str(path), cause=cause, remedy=REBUILD)
