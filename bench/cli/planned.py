"""What is still to be executed and what that needs, shown by `--plan` and checked before every sweep."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from bench.api import Backend
from bench.artifacts import cache
from bench.collector.host import cores_usable, memory_available_bytes
from bench.needs import Estimate, check_disk, check_memory, estimate
from bench.plan import Plan
from bench.preparing import Settings
from bench.runner import launch_key
from bench.types import Case, LoadGroup
from bench.units import render_bytes, render_duration

ASSUMED_READ_BYTES_PER_S = 20e9
ASSUMED_FLOPS_PER_CORE = 100e9
"""Only for the expected minutes, before anything is measured: one DDR5 channel, and int8 kernels of a modern core."""

TIMEOUT_S, TIMEOUT_SHARE = 3600.0, 4.0
"""The time limit of a launch where none is given: an hour, or this many times what is expected of the longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A load group as far as it is still to be executed: its cases without a record, `cases` over all `launches`."""

    group: LoadGroup
    cases: int
    launches: int
    needed: Estimate

    @property
    def label(self) -> str:
        case = self.group.first
        return f"{case.model}-{case.scheme} on {case.backend}"


def due_of(
    plan: Plan, adapters: Mapping[str, Backend], settings: Settings, missing: Collection[str]
) -> tuple[Due, ...]:
    """The load groups of a plan of which the journal misses something; `missing` are its keys."""
    found = []
    for group in plan.groups:
        launches = [
            {case for case in range(len(group.cases)) if launch_key(group.cases[case], index) in missing}
            for index in range(settings.launches)
        ]
        positions = sorted(set().union(*launches))
        if not positions:
            continue
        left = LoadGroup(cases=tuple(group.cases[position] for position in positions))
        count = sum(map(bool, launches))
        needed = estimate(
            left,
            adapters[group.first.backend],
            read_bytes_per_s=ASSUMED_READ_BYTES_PER_S,
            flops=ASSUMED_FLOPS_PER_CORE * cores_usable(),
            repetitions=settings.repetitions,
            launches=count,
            budget_s=settings.budget_s,
            file_bytes=_file_bytes(group.first),
        )
        found.append(Due(group=left, cases=sum(map(len, launches)), launches=count, needed=needed))
    return tuple(found)


def print_plan(plan: Plan, due: Sequence[Due], missing: Collection[str]) -> None:
    """Print the load groups with their needs, what is refused, and what this machine has."""
    for each in due:
        click.echo(f"{each.label}: " + ", ".join(case.workload.name for case in each.group.cases))
        click.echo(
            f"  disk {render_bytes(each.needed.disk_bytes)}, host memory {render_bytes(each.needed.host_bytes)} "
            f"(KV {render_bytes(each.needed.kv_bytes)}), about {_minutes(each.needed.minutes)}"
        )
    for case, support in plan.refused:
        if launch_key(case, 0) in missing:
            click.echo(f"unsupported: {case.label}: {support.detail} ({support.reason})")
    cases, launches = sum(each.cases for each in due), sum(each.launches for each in due)
    click.echo(f"{cases} cases, {launches} launches, about {_minutes(sum(each.needed.minutes for each in due))}")
    click.echo(
        f"free: {render_bytes(_free_disk(cache.root()))} of disk, {render_bytes(memory_available_bytes())} of memory"
    )


def check_plan(due: Sequence[Due]) -> None:
    """PrerequisiteError where the disk cannot hold all that is still to be written, or memory a load group.

    An artifact is known exactly, a prepared folder by its name alone: one of other options, versions or weights makes
    the disk that is needed look smaller than it is. What the disk cannot hold in the end fails when it is written.
    """
    writes = {each.label: _still_to_write(each) for each in due}
    folders = {folder: size for sizes in writes.values() for folder, size in sizes.items()}
    writers = ", ".join(label for label, sizes in writes.items() if sizes)
    check_disk(sum(folders.values()), _free_disk(cache.root()), where=writers)
    for each in due:
        check_memory(each.needed.host_bytes, memory_available_bytes(), where=each.label)


def default_timeout_s(due: Sequence[Due]) -> float:
    """The time limit of every launch where none is given."""
    return max([TIMEOUT_S, *(TIMEOUT_SHARE * each.needed.launch_s for each in due)])


def too_short(due: Sequence[Due], timeout_s: float) -> str | None:
    """What to say of a time limit that is shorter than a launch is expected to take; None for one that is not."""
    longest = max(due, key=lambda each: each.needed.launch_s, default=None)
    if longest is None or longest.needed.launch_s <= timeout_s:
        return None
    expected = _minutes(longest.needed.launch_s / 60)
    what = f"--timeout {render_duration(timeout_s)} is short: a launch of {longest.label} may take about {expected}"
    return f"{what}; leave it out to have enough"


def _still_to_write(due: Due) -> dict[Path, int]:
    """Folders that the cache lacks, with their sizes; what load groups share has the same name."""
    case, needed = due.group.first, due.needed
    if _file_bytes(case) is not None:
        return {}  # it gets a second name
    artifact = cache.artifact_folder(case.model, case.arch, case.scheme, case.weights)
    prepared = cache.prepared_folder(case.backend, f"{case.model}-{case.scheme}", "")
    there = any(prepared.parent.glob(f"{prepared.name}*"))
    sizes = {
        artifact: 0 if artifact.exists() else needed.artifact_bytes,
        prepared: 0 if there else needed.prepared_bytes,
    }
    return {folder: size for folder, size in sizes.items() if size}


def _file_bytes(case: Case) -> int | None:
    """Size of the file that the weights come from; None for weights that are made here."""
    return Path(case.weights).stat().st_size if case.from_file else None


def _minutes(minutes: float) -> str:
    return render_duration(max(60.0, minutes * 60))


def _free_disk(folder: Path) -> int:
    """Of the file system that `folder` lies on or will lie on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
