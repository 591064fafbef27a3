"""Interleaved pairs of two sides, each a fresh process each time; what scripts/against_* share."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median

from bench import protocol, registry
from bench.artifacts import cache
from bench.child import Child
from bench.environments.interpreter import Interpreter
from bench.plan import Request, make_plan
from bench.protocol import Job
from bench.reports.interval import t_interval
from bench.spec import load_catalog
from bench.types import LoadGroup, Prepared

WORKLOADS = {"pp512": 512, "tg128": 128}
"""Names, and the tokens that one repetition is."""
PAUSE_S = 4
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Either side is made alike in what is drawn by lot (docs/performance.md): before each process lies a pause, since a
virtual machine hands back what the one before had held two seconds after its end and computes little meanwhile; and
glibc is told to ask for huge pages, since a buffer in scattered small ones makes all of a process some per cent faster
or slower."""

Side = Callable[[], dict[str, float]]


def execute(sides: dict[str, Side], pairs: int, results: Path | None) -> None:
    """A B, B A, …; prints each pair's rates and, at the end, first / second. `results` keeps pairs as JSON lines."""
    os.environ.update(HUGE_PAGES)
    first, second = sides
    done: list[dict[str, dict[str, float]]] = []
    for number in range(pairs):
        pair: dict[str, dict[str, float]] = {}
        for name in (first, second) if number % 2 == 0 else (second, first):
            time.sleep(PAUSE_S)
            pair[name] = sides[name]()
        done.append(pair)
        shown = ", ".join(f"{name} {rate:.1f} / {pair[second][name]:.1f}" for name, rate in pair[first].items())
        print(f"{number + 1:2d} {shown} tokens/s", flush=True)
        if results:
            with results.open("a") as out:
                out.write(json.dumps(pair) + "\n")
    for name in done[0][first] if done else ():
        _report(
            name, [pair[first][name] for pair in done], [pair[second][name] for pair in done], f"{first} / {second}"
        )


def _report(workload: str, mine: Sequence[float], other: Sequence[float], what: str) -> None:
    """Geometric mean of the ratios and its t interval over pairs; medians of the rates."""
    ratios = [math.log(a / b) for a, b in zip(mine, other, strict=True)]
    low, high = t_interval(ratios) or (math.nan, math.nan)
    print(
        f"{workload} {what} {math.exp(fmean(ratios)):.3f}, {len(ratios)} pairs, 95 % interval {math.exp(low):.3f} to "
        f"{math.exp(high):.3f}; medians {median(mine):.1f}, {median(other):.1f} tokens/s"
    )


def group_of(
    backend: str, model: str, options: dict[str, str], workloads: Sequence[str] = tuple(WORKLOADS)
) -> LoadGroup:
    """`workloads` in their order, over a KV cache no larger than llama-bench's (512 instead of 1024 positions)."""
    request = Request(backends=(backend,), models=(model,), workloads=tuple(workloads), options=options)
    (group,) = make_plan(request, load_catalog(), {backend: registry.load(backend)}).groups
    cases = (replace(case, kv_capacity=max(WORKLOADS.values())) for case in group.cases)
    return LoadGroup(cases=tuple(sorted(cases, key=lambda case: case.workload.name)))


def prepared(backend: str, model: str, wanted: Callable[[Prepared], bool] = lambda made: True) -> Prepared:
    """What `bench run` has prepared of `model` for `backend`; of several that are `wanted` the last one used."""
    paths = [entry.path for entry in cache.entries() if entry.name.startswith(f"{backend}-{model}-")]
    notes = {path: path / "prepared.json" for path in paths if (path / "prepared.json").exists()}
    made = [replace(protocol.decode(Prepared, note.read_bytes()), path=str(path)) for path, note in notes.items()]
    chosen = [entry for entry in made if wanted(entry)]
    if not chosen:
        sys.exit(f"{model} is not prepared; first: scripts/bench run --backend {backend} --model {model}")
    return chosen[-1]


def worker_rates(group: LoadGroup, file: Prepared, repetitions: int) -> dict[str, float]:
    """Tokens per second from a fresh worker, as `bench run` starts it but without reference: nothing is gated here."""
    target = registry.target(group.first.backend)
    job = Job(task="measure", adapter=target, group=group, prepared=file, repetitions=repetitions)
    rates: dict[str, list[float]] = {case.workload.name: [] for case in group.cases}
    with tempfile.TemporaryDirectory() as folder:
        interpreter = Interpreter(python=sys.executable, origin="this interpreter")
        with Child(interpreter, job, Path(folder, "worker.log"), limit_s=3600) as child:
            for event in child.events():
                if event["event"] == "error":
                    raise protocol.rebuild(event)
                if event["event"] == "sample":
                    name, sample = group.cases[event["case"]].workload.name, event["sample"]
                    rates[name].append(WORKLOADS[name] / ((sample["prefill_s"] or 0) + sum(sample["step_s"])))
    return {name: fmean(taken) for name, taken in rates.items()}
