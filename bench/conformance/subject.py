"""An adapter under check: its name, the models it is given, and what it made of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench import parity, registry
from bench.api import Backend, Session
from bench.artifacts.noise import CLASSES
from bench.artifacts.reader import CanonicalArtifact, open_artifact
from bench.artifacts.reference import compute_reference, gate_ids
from bench.artifacts.stored_reference import Reference
from bench.artifacts.synthesize import synthesize
from bench.conformance.check import Failure, Gap, demand
from bench.conformance.models import ARCHS, POSITIONS, Variant
from bench.facts import SessionFacts
from bench.plan import parse_options, provider_named
from bench.types import Availability, Case, Int32, LoadGroup, Prepared, Workload


def ignore(done: int, total: int) -> None:
    """Progress that nobody watches."""


class Subject:
    """One adapter by its registered name or `module:Attribute`; models and prepared files live in `scratch`.

    Everything is made when a check first asks for it and kept for the others. Subjects may share a scratch folder.
    `options` are raw, as behind `--set`, and `provider` as behind `--provider`; UsageError for what the adapter lacks.
    """

    def __init__(self, name: str, scratch: Path, options: Mapping[str, str] | None = None, provider: str | None = None):
        self.name, self.scratch = name, scratch
        self.target = registry.target(name)
        self.backend: Backend = registry.load(name)
        self.provider = provider_named(self.backend, provider) if provider else None
        self._given = options or {}
        self.options()
        self._artifacts: dict[tuple[str, str], CanonicalArtifact] = {}
        self._prepared: dict[tuple[str, str], Prepared] = {}
        self._references: dict[tuple[str, str, int], Reference] = {}

    @cached_property
    def availability(self) -> Availability:
        try:
            return self.backend.probe()
        except Exception as error:
            raise Failure(f"probe() raises {type(error).__name__}: {error}") from error

    @cached_property
    def isolated(self) -> dict[str, Any]:
        """What bench.conformance.isolated found in a fresh process where no runtime can be imported."""
        paths = [str(Path(__file__).parents[2]), *filter(None, sys.path)]
        done = subprocess.run(
            [sys.executable, "-m", "bench.conformance.isolated", self.target, *self.availability.providers],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            check=False,
        )
        demand(done.returncode == 0, f"importing {self.target} without its runtime: {done.stderr.strip()[-400:]}")
        *printed, last = done.stdout.splitlines()
        found: dict[str, Any] = json.loads(last)
        found["printed"] = "\n".join(printed) + done.stderr
        return found

    def case(self, variant: Variant, workload: Workload | None = None) -> Case:
        """The case of `variant`; its workload is a prompt of 32 tokens in one step unless another is given."""
        return Case(
            model=variant.model,
            scheme=variant.scheme,
            weights="synthetic",
            arch=ARCHS[variant.model],
            backend=self.backend.name,
            device=None,
            provider=self.provider,
            fidelity=variant.fidelity,
            workload=workload or Workload(name="pp32", prompt_tokens=POSITIONS, new_tokens=0, batch=variant.batch),
            kv_capacity=variant.capacity,
            options=self.options(),
        )

    def options(self) -> dict[str, Any]:
        """All options of the adapter: those that were given, and the defaults of the others."""
        return parse_options(self.name, self.backend.options, self._given, self.provider or self.backend.provider)

    def artifact(self, variant: Variant) -> CanonicalArtifact:
        key = variant.model, variant.scheme
        if key not in self._artifacts:
            folder = self.scratch / "artifacts" / "-".join(key)
            if not folder.exists():
                folder.mkdir(parents=True)
                synthesize(folder, model=variant.model, arch=ARCHS[variant.model], scheme=variant.scheme, processes=1)
            self._artifacts[key] = open_artifact(folder)
        return self._artifacts[key]

    def prepared(self, variant: Variant) -> Prepared:
        """What the adapter writes for the model of `variant`: for both fidelities and any batch."""
        key = variant.model, variant.scheme
        if key not in self._prepared:
            self._prepared[key] = self.prepare(self.case(variant), self.artifact(variant))
        return self._prepared[key]

    def prepare(self, case: Case, artifact: CanonicalArtifact) -> Prepared:
        """Prepare into a fresh folder of its own."""
        folder = self.scratch / self.backend.name / f"{len(list(self.scratch.glob('*/*')))}-{case.model}-{case.scheme}"
        folder.mkdir(parents=True)
        return self.backend.prepare(case, artifact, folder, ignore)

    def rows(self, variant: Variant) -> Int32:
        """Token ids [batch, 32]: the gate's, each row shifted against the others."""
        ids = gate_ids(self.artifact(variant))
        return np.stack([np.roll(ids, 5 * row) for row in range(variant.batch)])

    def reference(self, variant: Variant, row: int = 0) -> Reference:
        """Of one of the rows, with every precision class."""
        key = variant.model, variant.scheme, row
        if key not in self._references:
            ids = np.roll(gate_ids(self.artifact(variant)), 5 * row)
            self._references[key] = compute_reference(self.artifact(variant), ids, CLASSES)
        return self._references[key]

    def require(self, case: Case) -> None:
        """Gap where the adapter does not support `case` or cannot execute at all on this machine."""
        support = self.backend.support(case)
        if not support.ok:
            raise Gap(f"{support.reason}: {support.detail}")
        if not self.availability.ok:
            raise Gap(f"not here: {self.availability.reason}; {self.availability.remedy}")

    @contextmanager
    def opened(self, variant: Variant, **changes: Any) -> Iterator[Session]:
        """A session for `variant` (`changes` to its case), closed whatever happens; Gap where that is refused."""
        case = replace(self.case(variant), **changes)
        self.require(case)
        nothing = Prepared(path="", files=())
        prepared = self.prepared(variant) if self.backend.computes else nothing
        session = self.backend.open(LoadGroup(cases=(case,)), prepared)
        try:
            yield session
        finally:
            session.close()

    def agreement(self, variant: Variant, facts: SessionFacts) -> float:
        """Most that two honest paths of this session may differ, relative to the centred logits."""
        if not self.backend.computes:
            return 0.0
        return parity.agreement_bound(self.reference(variant), facts.precision_classes) or 0.0
