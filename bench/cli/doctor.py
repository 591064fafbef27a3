"""`bench doctor`: what is missing on this machine, and the command that mends it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator

import click

from bench import registry
from bench.artifacts import cache
from bench.cli import doctor_sensors
from bench.collector import host, locks, machine
from bench.collector.machine import fitness
from bench.collector.machine.fitness import Finding
from bench.environments import managed
from bench.environments.finding import find, remedy
from bench.environments.host_file import locate_host_file, read_host_file, read_meter
from bench.environments.interpreter import Interpreter
from bench.errors import BenchError
from bench.results.location import locate_store
from bench.results.store import Store
from bench.units import render_bytes

LITTLE_DISK_BYTES = 20 * 10**9


@click.command(short_help="Is this machine fit for measuring?")
@click.option("--results", metavar="DIR", help="The store (else $BENCH_RESULTS).")
def doctor(results: str | None) -> int:
    """Say whether this machine is fit for measuring, and what to do where it is not.

    The exit code is 3 if no backend can execute or a folder cannot be written, else 0.
    """
    backends = list(_backends())
    folders = [_cache(), _store(Store(locate_store(results)))]
    sensors = doctor_sensors.findings(read_meter(locate_host_file()))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for finding in [*_machine(), *sensors, *folders, *_environments(), *backends]:
        for line in finding.lines(width):
            click.echo(line)
    usable = any(finding.fit for finding in backends if finding.what != "backend null")
    return 0 if usable and all(finding.fit for finding in folders) else 3


def _machine() -> Iterator[Finding]:
    facts = host.facts()
    yield Finding(what="python", found=f"{facts['python']} ({sys.executable})")
    cores = host.cores_usable()
    yield Finding(what="processor", found=f"{facts['cpu']}, {cores} usable cores")
    available = host.memory_available_bytes()
    yield Finding(what="memory", found=f"{render_bytes(available)} available of {render_bytes(facts['memory_bytes'])}")
    yield from fitness.findings(machine.facts(), fitness.moment())
    if alone := locks.shared_with_host():
        what, _, remedy = alone.partition(": ")
        yield Finding(what="lock", found=what, fit=False, remedy=remedy)


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
        unusable = "".join(f"; {provider}: {why}" for provider, why in told.unusable.items() if told.ok)
        elsewhere = found.interpreter.origin != "this interpreter"
        yield Finding(
            what=f"backend {name}",
            found=(told.reason or (f"{versions} ({where})" if where else versions) + unusable)
            + (f"; {found.interpreter.origin}: {_short(found.interpreter)}" if elsewhere else ""),
            fit=told.ok,
            remedy=None if told.ok else remedy(found, backend),
        )


def _short(interpreter: Interpreter) -> str:
    """The interpreter with the first word of what stands before it: a container's command fills lines."""
    return f"{interpreter.prefix[0]} … {interpreter.python}" if interpreter.prefix else interpreter.python
