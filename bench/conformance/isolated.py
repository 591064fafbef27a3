"""What an adapter does in a fresh process where no runtime can be imported. Executed by bench.conformance.subject.

`python -m bench.conformance.isolated MODULE:ATTRIBUTE [PROVIDER…]` prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast, get_args

from bench.api import Backend
from bench.conformance.models import ARCHS, SCHEMES
from bench.types import Case, Family, Fidelity, NoReason, Support, Workload
from bench.worker import load_adapter

NOT_A_SCHEME = "q9_z"


class Blocked:
    """Refuses every import but the standard library's, numpy's, this project's and the adapter's own."""

    def __init__(self, own: str):
        self.allowed = {"bench", "numpy", own}

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in self.allowed:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked by the conformance suite)", name=name)


def main(target: str, providers: Sequence[str]) -> dict[str, Any]:
    """Import without and with the runtime blocked, probe and ask for support without it."""
    own = target.partition(":")[0].partition(".")[0]
    before, modules = _surroundings(), set(sys.modules)
    backend = load_adapter(target)
    new = {name.partition(".")[0] for name in set(sys.modules) - modules}
    after = _surroundings()
    import bench.plan  # noqa: F401  (needs msgspec, which until here would have hidden that the adapter does)

    blocked = Blocked(own)
    sys.meta_path.insert(0, blocked)
    return {
        "loaded": sorted(top for top in new - blocked.allowed if top not in sys.stdlib_module_names),
        "changed": [name for name in before if before[name] != after[name]],
        "probe": _probed(backend),
        "support": sorted(set(_support_problems(backend, [None, "NoSuchExecutionProvider", *providers]))),
    }


def _probed(backend: Backend) -> dict[str, Any]:
    try:
        found = backend.probe()
    except Exception as error:
        return {"raised": f"{type(error).__name__}: {error}"}
    return {"raised": None, "reason": found.reason, "remedy": found.remedy}


def _support_problems(backend: Backend, providers: Sequence[str | None]) -> Iterator[str]:
    for case in cases(backend, providers):
        at = f"{case.model}-{case.scheme} {case.provider} {case.workload}"
        try:
            first, second = backend.support(case), backend.support(case)
        except Exception as error:
            yield f"raises {type(error).__name__}: {error} for {at}"
            continue
        if not isinstance(first, Support) or first != second:
            yield f"answers {first!r}, then {second!r} for {at}"
        elif not first.ok and (first.reason not in get_args(NoReason) or not first.detail):
            yield f"says no without reason and detail for {at}"
        elif first.ok and case.scheme == NOT_A_SCHEME and backend.computes:
            yield f"says yes to a scheme that does not exist ({NOT_A_SCHEME})"


def cases(backend: Backend, providers: Sequence[str | None]) -> Iterator[Case]:
    """The grid: families × schemes × batch × depth × chunk × fidelity × providers × devices."""
    from bench.plan import default_options

    options = default_options(backend)
    archs = {**ARCHS, "unknown": replace(ARCHS["llama"], family=cast(Family, "martian"))}
    shapes = product((1, 3, 64), (0, 100), (1, 64, 512))
    workloads = [
        Workload(name="grid", prompt_tokens=prompt, new_tokens=8, depth=depth, batch=batch, chunk=chunk)
        for batch, depth, chunk in shapes
        for prompt in (0, 128)
    ]
    grid = product(
        archs.items(), (*SCHEMES, NOT_A_SCHEME), workloads, get_args(Fidelity), providers, (None, "0", "x:9")
    )
    for (model, arch), scheme, workload, fidelity, provider, device in grid:
        yield Case(
            model=model,
            scheme=scheme,
            weights="synthetic",
            arch=arch,
            backend=backend.name,
            device=device,
            provider=provider,
            fidelity=fidelity,
            workload=workload,
            kv_capacity=512,
            options=options,
        )


def _surroundings() -> dict[str, Any]:
    return {
        "environment": dict(os.environ),
        "working folder": str(Path.cwd()),
        "import path": list(sys.path),
        "threads": threading.active_count(),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2:])))  # noqa: T201 (it is the answer to the parent)
