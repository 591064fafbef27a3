"""Tiny models for tests of the `llamacpp` adapter: each made once, opened as a test says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backends.llamacpp import LlamaCpp
from backends.llamacpp.session import LlamaCppSession
from bench.artifacts.reader import CanonicalArtifact, open_artifact
from bench.artifacts.synthesize import synthesize
from bench.types import Arch, Case, Fidelity, Float32, Int32, LoadGroup, Prepared, Workload
from tests import fakes
from tests.tiny import tiny_arch

OPTIONS = {name: option.default for name, option in LlamaCpp.options.items()}
CAPACITY = 128


@dataclass(frozen=True)
class Made:
    """One model: the canonical artifact and what the adapter prepared from it."""

    artifact: CanonicalArtifact
    prepared: Prepared

    @property
    def gguf(self) -> Path:
        return Path(self.prepared.path, self.prepared.files[0])


class Models:
    """Models in a folder of their own, by architecture and scheme."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._made: dict[tuple[Arch, str], Made] = {}

    def made(self, scheme: str = "int8", **arch: Any) -> Made:
        key = tiny_arch(**{"hidden": 128, "ffn": 192, **arch}), scheme
        if key not in self._made:
            folder = self._folder / str(len(self._made))
            for name in ("canonical", "prepared"):
                (folder / name).mkdir(parents=True)
            synthesize(folder / "canonical", model="tiny", arch=key[0], scheme=scheme, processes=1)
            artifact = open_artifact(folder / "canonical")
            prepared = LlamaCpp().prepare(case(key[0], scheme), artifact, folder / "prepared", lambda done, total: None)
            self._made[key] = Made(artifact, prepared)
        return self._made[key]

    @contextmanager
    def opened(
        self,
        scheme: str = "int8",
        *,
        batch: int = 1,
        prompt: int = 32,
        exact: bool = False,
        device: str | None = None,
        arch: dict[str, Any] | None = None,
        **options: Any,
    ) -> Iterator[LlamaCppSession]:
        """A session on a tiny model (`arch` changes its numbers); `options` are those of `--set`."""
        made = self.made(scheme, **(arch or {}))
        asked = case(made.artifact.arch, scheme, "exact" if exact else "native", **options)
        workload = Workload(name="pp", prompt_tokens=prompt, new_tokens=0, batch=batch)
        asked = replace(asked, workload=workload, device=device)
        session = LlamaCpp().open(LoadGroup(cases=(asked,)), made.prepared)
        try:
            yield session
        finally:
            session.close()


def case(arch: Arch, scheme: str = "int8", fidelity: Fidelity = "native", **options: Any) -> Case:
    """A prompt of 32 tokens on `arch`; `options` beside the adapter's defaults."""
    return fakes.case(
        Workload(name="pp32", prompt_tokens=32, new_tokens=0),
        backend="llamacpp",
        arch=arch,
        scheme=scheme,
        fidelity=fidelity,
        kv_capacity=CAPACITY,
        options={**OPTIONS, "threads": 1, **options},  # more would wait for each other on a busy machine
    )


def ids(rows: int, count: int, seed: int = 0) -> Int32:
    """[rows, count] token ids of the tiny vocabulary."""
    return np.random.default_rng(seed).integers(0, 300, (rows, count), dtype=np.int32)


def error(measured: Float32, expected: Float32) -> float:
    """‖Δ‖ / ‖centred expected‖ over everything."""
    centred = expected - expected.mean(-1, keepdims=True)
    return float(np.linalg.norm(measured - expected) / np.linalg.norm(centred))
