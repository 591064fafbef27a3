"""`bench doctor`: what is missing on this machine, and the command that mends it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import click

from bench import registry
from bench.artifacts import cache
from bench.collector import host
from bench.environments import managed
from bench.environments.finding import find, remedy
from bench.environments.host_file import locate_host_file, read_host_file
from bench.environments.interpreter import Interpreter
from bench.errors import BenchError
from bench.results.location import locate_store
from bench.results.store import Store
from bench.units import render_bytes

BUSY_LOAD_SHARE = 0.2
LITTLE_DISK_BYTES = 20 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line: what was looked at, whether it is fit for measuring, and what to execute if it is not."""

    what: str
    found: str
    fit: bool = True
    remedy: str | None = None


@click.command(short_help="Is this machine fit for measuring?")
@click.option("--results", metavar="DIR", help="The store (else $BENCH_RESULTS).")
def doctor(results: str | None) -> int:
    """Say whether this machine is fit for measuring, and what to do where it is not.

    The exit code is 3 if no backend can execute or a folder cannot be written, else 0.
    """
    backends = list(_backends())
    folders = [_cache(), _store(Store(locate_store(results)))]
    for finding in [*_machine(), *folders, *_environments(), *backends]:
        mark = "ok" if finding.fit else "!!"
        click.echo(f"{mark}  {finding.what}: {finding.found}")
        if finding.remedy:
            click.echo(f"      {finding.remedy}")
    usable = any(finding.fit for finding in backends if finding.what != "backend null")
    return 0 if usable and all(finding.fit for finding in folders) else 3


def _machine() -> Iterator[Finding]:
    facts = host.facts()
    yield Finding(what="python", found=f"{facts['python']} ({sys.executable})")
    cores = host.cores_usable()
    yield Finding(what="processor", found=f"{facts['cpu']}, {cores} usable cores")
    available = host.memory_available_bytes()
    yield Finding(what="memory", found=f"{render_bytes(available)} available of {render_bytes(facts['memory_bytes'])}")
    governor = host.governor()
    yield Finding(
        what="governor",
        found=governor or "not shown by this kernel (usual in virtual machines)",
        fit=governor in (None, "performance"),
        remedy=None if governor in (None, "performance") else "sudo cpupower frequency-set -g performance",
    )
    load = os.getloadavg()[0]
    busy = load > BUSY_LOAD_SHARE * cores
    yield Finding(
        what="load",
        found=f"{load:.2f} processes ran on average over the last minute",
        fit=not busy,
        remedy="end other programs, or wait: they share the memory bandwidth" if busy else None,
    )


def _cache() -> Finding:
    root = cache.root()
    folder = next(parent for parent in (root, *root.parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    text = f"{root}, {render_bytes(free)} free"
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Finding(
            what="cache", found=f"{text}, not writable", fit=False, remedy="export BENCH_CACHE=/a/folder/of/yours"
        )
    if free < LITTLE_DISK_BYTES:
        return Finding(what="cache", found=f"{text}: a 7B model takes about 17 GB", remedy="bench cache prune")
    return Finding(what="cache", found=text)


def _store(store: Store) -> Finding:
    try:
        store.check_writable()
    except BenchError as error:
        return Finding(what="results", found=error.what, fit=False, remedy=error.remedy)
    left = len(store.leftovers())
    note = f"{left} unfinished launches; bench run --resume goes on with the last sweep" if left else None
    return Finding(what="results", found=str(store.root), remedy=note)


def _environments() -> Iterator[Finding]:
    host_file = locate_host_file()
    if host_file:
        yield Finding(what="host file", found=f"{host_file}: {', '.join(read_host_file(host_file)) or 'empty'}")
    for made in managed.environments():
        ready = made.told is not None and made.told.ready
        yield Finding(
            what=f"environment {made.name}",
            found=str(made.path) if ready else f"{made.path}, not finished",
            fit=ready,
            remedy=None if ready else f"bench setup {made.name}",
        )


def _backends() -> Iterator[Finding]:
    host = read_host_file(locate_host_file())
    for name in registry.names():
        try:
            backend = registry.load(name)
            found = find(backend, registry.target(name), host=host)
        except BenchError as error:
            yield Finding(what=f"backend {name}", found=str(error), fit=False)
            continue
        told = found.availability
        versions = ", ".join(f"{package} {version}" for package, version in told.versions.items())
        where = ", ".join([*told.providers, *(device.name for device in told.devices if not told.providers)])
        elsewhere = found.interpreter.origin != "this interpreter"
        yield Finding(
            what=f"backend {name}",
            found=(told.reason or (f"{versions} ({where})" if where else versions))
            + (f"; {found.interpreter.origin}: {_short(found.interpreter)}" if elsewhere else ""),
            fit=told.ok,
            remedy=None if told.ok else remedy(found, backend),
        )


def _short(interpreter: Interpreter) -> str:
    """The interpreter with the first word of what stands before it: a container's command fills lines."""
    return f"{interpreter.prefix[0]} … {interpreter.python}" if interpreter.prefix else interpreter.python
