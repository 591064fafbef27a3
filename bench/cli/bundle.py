"""`bench bundle`: everything that a machine without a network needs, in one folder."""

from __future__ import annotations

import platform
import shlex
from pathlib import Path

import click

from bench import registry
from bench.cli.display import display
from bench.cli.setup import lines_to
from bench.environments import bundling
from bench.types import Requirements
from bench.units import render_bytes


@click.command(short_help="Collect wheels for a machine without a network.")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.argument("backends", nargs=-1, metavar="[BACKEND…]")
def bundle(folder: Path, backends: tuple[str, ...]) -> None:
    """Collect in DIR what this project and the runtimes of BACKENDs are installed from.

    Without any: those of all backends for which nothing must be compiled and whose download is known.

    bench bundle /media/stick/bench-wheels onnx
    """
    adapters = [registry.load(name) for name in backends or registry.names()]
    if not backends:
        adapters = [each for each in adapters if _is_light(each.requirements(None))]
    folder = folder.expanduser().absolute()
    with display() as watcher:
        wheels = bundling.bundle(folder, adapters, lines_to(watcher))
    size = render_bytes(sum(wheel.stat().st_size for wheel in wheels))
    click.echo(f"{len(wheels)} wheels, {size}, in {folder}")
    click.echo(f"They fit {platform.system()} {platform.machine()} and Python {platform.python_version()[:4]}.")
    for adapter in adapters:
        if adapter.requirements(None).native:
            click.echo(f"What {adapter.name} brings was compiled here: it fits only processors like this one.")
    there = folder.as_uri() if " " in str(folder) else shlex.quote(str(folder))
    extras = ",".join(adapter.name for adapter in adapters if adapter.requirements(None).packages)
    wheel = shlex.quote(f"evenbench[{extras}]" if extras else "evenbench")
    click.echo("There, with DIR at the same place and in a copy of this checkout:")
    click.echo(f"    export PIP_NO_INDEX=1 PIP_FIND_LINKS={there}")
    click.echo(f"    scripts/bench run --backend {extras or 'null'} --model smollm2-135m-int8")
    click.echo("or, without a checkout:")
    click.echo(f"    python3 -m venv evenbench && evenbench/bin/pip install {wheel}")


def _is_light(needed: Requirements) -> bool:
    """Whether it is collected unasked: a vendor's runtime may be gigabytes, which only its adapter could tell."""
    return not needed.native and (not needed.packages or needed.download_bytes is not None)
