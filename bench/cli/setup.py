"""`bench setup`: environments in which backends find their runtimes."""

from __future__ import annotations

import sys

import click

from bench import registry
from bench.cli.display import display
from bench.environments import installing, managed
from bench.environments.pip import Watch
from bench.errors import UsageError
from bench.preparing import Watcher
from bench.units import render_bytes, render_duration


@click.command(short_help="Make an environment that holds a backend's runtime.")
@click.argument("backend", required=False)
@click.option("--accelerator", metavar="NAME", help="What the runtime is to compute on, as the backend names it.")
@click.option("--python", default=sys.executable, metavar="PATH", help="Interpreter that makes the environment.")
@click.option("--list", "listing", is_flag=True, help="Show the environments there are.")
@click.option("--remove", metavar="BACKEND", help="Delete a backend's environment.")
def setup(backend: str | None, accelerator: str | None, python: str, listing: bool, remove: str | None) -> None:
    """Install a backend's runtime into an environment of its own, which `bench run` then finds by itself.

    Asks nothing. Interrupted, it goes on when it is called again; finished, it does nothing.

    bench setup onnx
    """
    if sum([backend is not None, listing, remove is not None]) != 1:
        raise UsageError("takes a backend, --list or --remove", where="setup", remedy="`bench setup --help` shows all")
    if listing:
        _list()
    elif remove is not None:
        removed = managed.remove(remove)
        click.echo(f"{removed.name}: removed from {removed.path.parent}", err=True)
    elif backend is not None:
        adapter = registry.load(backend)
        _setup(installing.want(adapter, registry.target(backend), accelerator, python))


def _setup(wanted: installing.Wanted) -> None:
    found = installing.finished(wanted)
    if found is not None:
        click.echo("already there and as asked: nothing to do", err=True)
    else:
        installing.check(wanted)
        _announce(wanted)
        with display() as watcher:
            found = installing.install(wanted, lines_to(watcher))
    made = wanted.environment
    versions = ", ".join(f"{package} {version}" for package, version in found.versions.items())
    click.echo(f"{made.name}: {versions}; {render_bytes(made.size_bytes())} in {made.path}")


def lines_to(watcher: Watcher) -> Watch:
    """What shows the lines of an installation, one over the other on a terminal."""

    def watch(line: str | None) -> None:
        if line is None:
            watcher.tick()
        elif line[:1].strip():  # indented lines are details of the one before
            watcher.phase("pip:", line)

    return watch


def _announce(wanted: installing.Wanted) -> None:
    """What will be installed, where, how much that is and how long it takes: before anything is done."""
    needed = wanted.requirements
    click.echo(f"installs {', '.join(wanted.packages)} with Python {wanted.python_version}", err=True)
    click.echo(f"  into {wanted.environment.path}", err=True)
    sizes = [
        f"about {render_bytes(size)} {what}"
        for size, what in ((needed.download_bytes, "to download"), (needed.disk_bytes, "on disk"))
        if size is not None
    ]
    if needed.minutes is not None:
        sizes.append(f"compiles for about {render_duration(60 * needed.minutes)} on two cores")
    for line in (", ".join(sizes), needed.notes):
        if line:
            click.echo(f"  {line}", err=True)


def _list() -> None:
    """One line an environment."""
    for made in managed.environments():
        told = made.told
        state = "ready" if told and told.ready else f"not finished: `bench setup {made.name}` goes on"
        named = f"{made.name} ({told.accelerator})" if told and told.accelerator else made.name
        versions = ", ".join(f"{package} {version}" for package, version in told.versions.items()) if told else ""
        held = f"Python {told.python_version}" if told else ""
        parts = [state, versions, held, render_bytes(made.size_bytes()), str(made.path)]
        click.echo(f"{named}: {'; '.join(part for part in parts if part)}")
    if not managed.environments():
        click.echo("none")
