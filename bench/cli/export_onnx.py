"""`bench export onnx`: a model as a folder for others' compilers."""

from __future__ import annotations

from pathlib import Path

import click

from bench import registry
from bench.cli.display import display
from bench.environments.finding import absent, find
from bench.environments.host_file import locate_host_file, read_host_file
from bench.errors import UsageError
from bench.exporting import check_export, export_model, sampled
from bench.spec import Resolved, load_catalog
from bench.types import SYNTHETIC, Case, Workload
from bench.units import render_bytes

BACKEND = "onnx"
CHUNK = 128
"""Tokens of a prefill step where none are named."""


@click.command(BACKEND, short_help="A model for others' compilers.")
@click.argument("name", metavar="MODEL-SCHEME")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--dialect", required=True, metavar="DIALECT", help="opset21: codes as they are; opset17: float16.")
@click.option("--static", "length", metavar="LENGTH", type=int, help="Fix all shapes; LENGTH positions of KV cache.")
@click.option("--chunk", metavar="N", type=int, help=f"Tokens of a prefill step, with --static (else {CHUNK}).")
@click.option("--batch", metavar="N", type=int, default=1, show_default=True, help="Rows.")
@click.option("--python", metavar="PATH", help="Interpreter of the worker (docs/environments.md).")
@click.option("--host", type=click.Path(path_type=Path), help="How this machine executes workers ($BENCH_HOST).")
@click.option("--models", "model_files", type=click.Path(path_type=Path), multiple=True, help="More models.toml.")
def export_onnx(
    name: str,
    folder: Path,
    dialect: str,
    length: int | None,
    chunk: int | None,
    batch: int,
    python: str | None,
    host: Path | None,
    model_files: tuple[Path, ...],
) -> None:
    """Write MODEL-SCHEME into the new folder DIR: graphs of standard operators, weights in pieces, a sample, a checker.

    With --static a graph for prefill and one for decode, else one graph of any shape.

    bench export onnx smollm2-135m-int8 --dialect opset17 --static 1024 smollm2-opset17
    """
    if Path(name).is_file():
        raise UsageError(
            "weights of a file cannot be exported", where=name, cause="there is no reference to check them against"
        )
    case = _case(load_catalog(model_files).resolve(name), dialect, length, chunk, batch)
    backend, target = registry.load(BACKEND), registry.target(BACKEND)
    check_export(case, backend)
    found = find(backend, target, python=python, host=read_host_file(locate_host_file(host)))
    if not found.availability.ok:
        raise absent(found, backend)
    with display() as watcher:
        export_model(case, backend, target, found.interpreter, folder, watcher)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    click.echo(f"{name} {dialect} {render_bytes(size)} {folder}")


def _case(resolved: Resolved, dialect: str, length: int | None, chunk: int | None, batch: int) -> Case:
    """What is exported, its workload being the sample's; UsageError for numbers that do not fit each other."""
    model, scheme, arch, _ = resolved
    if batch < 1:
        raise UsageError(f"{batch} is too few", where="--batch", remedy="give at least 1")
    if length is None and chunk is not None:
        raise UsageError("needs --static", where="--chunk", cause="a dynamic graph takes any number of tokens")
    prompt_tokens, steps = sampled(length)
    if length is not None:
        if not 2 <= length <= arch.context:
            raise UsageError(
                f"{length} positions are not possible", where="--static", cause=f"{model} has 2 to {arch.context}"
            )
        chunk = min(CHUNK, length) if chunk is None else chunk
        if not 2 <= chunk <= length or length % chunk:
            raise UsageError(
                f"chunks of {chunk} tokens do not fill a cache of {length}",
                where="--chunk",
                remedy="give a divisor of LENGTH, at least 2",
            )
    return Case(
        model=model,
        scheme=scheme,
        weights=SYNTHETIC,
        arch=arch,
        backend=BACKEND,
        device=None,
        provider=None,
        fidelity="exact",
        workload=Workload(
            name="sample",
            prompt_tokens=prompt_tokens,
            new_tokens=steps,
            batch=batch,
            chunk=chunk or prompt_tokens,
        ),
        kv_capacity=length or prompt_tokens + steps,
        options={"dialect": dialect, "shapes": "dynamic" if length is None else "static"},
    )
