"""What a plan needs, shown by `--plan` and checked before every sweep: disk, memory, minutes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from bench.api import Backend
from bench.artifacts import cache
from bench.collector.host import cores_usable, memory_available_bytes
from bench.errors import PrerequisiteError
from bench.plan import Estimate, Plan, check_fits, estimate
from bench.preparing import Settings
from bench.types import LoadGroup
from bench.units import render_bytes, render_duration

ASSUMED_READ_BYTES_PER_S = 20e9
ASSUMED_FLOPS_PER_CORE = 100e9
"""Only for the expected minutes, before anything is measured: one DDR5 channel, and int8 kernels of a modern core."""


def print_plan(plan: Plan, adapters: Mapping[str, Backend], settings: Settings) -> None:
    """Print the load groups with their needs, what is refused, and what this machine has."""
    minutes = 0.0
    for group in plan.groups:
        needed = _needs(group, adapters, settings)
        minutes += needed.minutes
        _print(group, needed)
    for case, support in plan.refused:
        click.echo(f"unsupported: {case.label}: {support.detail} ({support.reason})")
    cases = sum(len(group.cases) for group in plan.groups) * settings.launches
    click.echo(f"{cases} cases, {len(plan.groups) * settings.launches} launches, about {_minutes(minutes)}")
    click.echo(
        f"free: {render_bytes(_free_disk(cache.root()))} of disk, {render_bytes(memory_available_bytes())} of memory"
    )


def check_plan(plan: Plan, adapters: Mapping[str, Backend], settings: Settings) -> None:
    """PrerequisiteError for the first load group that this machine's disk or memory cannot hold."""
    free_disk, available = _free_disk(cache.root()), memory_available_bytes()
    for group in plan.groups:
        try:
            check_fits(_still_to_write(group, _needs(group, adapters, settings)), free_disk, available)
        except PrerequisiteError as error:
            error.where = f"{group.first.model}-{group.first.scheme} on {group.first.backend}"
            raise


def _needs(group: LoadGroup, adapters: Mapping[str, Backend], settings: Settings) -> Estimate:
    return estimate(
        group,
        read_bytes_per_s=ASSUMED_READ_BYTES_PER_S,
        flops=ASSUMED_FLOPS_PER_CORE * cores_usable(),
        repetitions=settings.repetitions,
        launches=settings.launches,
        computes=adapters[group.first.backend].computes,
    )


def _print(group: LoadGroup, needed: Estimate) -> None:
    case = group.first
    click.echo(f"{case.model}-{case.scheme} on {case.backend}: " + ", ".join(c.workload.name for c in group.cases))
    click.echo(
        f"  disk {render_bytes(needed.disk_bytes)}, host memory {render_bytes(needed.host_bytes)} "
        f"(KV {render_bytes(needed.kv_bytes)}), about {_minutes(needed.minutes)}"
    )


def _still_to_write(group: LoadGroup, needed: Estimate) -> Estimate:
    """What is in the cache needs no more disk."""
    case = group.first
    artifact = cache.artifact_folder(case.model, case.arch, case.scheme, case.weights)
    prepared = cache.prepared_folder(case.backend, f"{case.model}-{case.scheme}", "").parent
    return replace(
        needed,
        artifact_bytes=0 if artifact.exists() else needed.artifact_bytes,
        prepared_bytes=0
        if any(prepared.glob(f"{case.backend}-{case.model}-{case.scheme}-*"))
        else needed.prepared_bytes,
    )


def _minutes(minutes: float) -> str:
    return render_duration(max(60.0, minutes * 60))


def _free_disk(folder: Path) -> int:
    """Of the file system that `folder` lies on or will lie on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
