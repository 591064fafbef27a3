"""`bench prepare`: make artifacts and references ahead of time."""

from __future__ import annotations

from pathlib import Path

import click

from bench.artifacts import cache
from bench.artifacts.reader import open_artifact
from bench.artifacts.reference import ensure_reference
from bench.cli.display import display
from bench.spec import load_catalog
from bench.units import render_bytes


@click.command(short_help="Write artifacts and their references into the cache.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL-SCHEME…")
@click.option("--weights", default="synthetic", show_default=True, help="Where the weights come from.")
@click.option("--models", "model_files", type=click.Path(path_type=Path), multiple=True, help="More models.toml.")
@click.option("--force", is_flag=True, help="Make them again even if they are there.")
def prepare(models: tuple[str, ...], weights: str, model_files: tuple[Path, ...], force: bool) -> None:
    """Write the canonical files of models and their float32 references into the cache.

    bench prepare smollm2-135m-int8
    """
    catalog = load_catalog(model_files)
    resolved = [catalog.resolve(name) for name in models]
    for model, scheme, arch, _ in resolved:
        with display() as watcher:
            watcher.phase("synthesize", f"{model}-{scheme}")
            folder = cache.ensure_artifact(model, arch, scheme, weights, progress=watcher.progress, force=force)
            watcher.phase("reference", "float32 pass")
            ensure_reference(folder, progress=watcher.progress)
        artifact = open_artifact(folder)
        click.echo(f"{model}-{scheme} {artifact.digest[:16]} {render_bytes(artifact.gguf.stat().st_size)} {folder}")
