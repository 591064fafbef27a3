"""`bench list models|backends|workloads|devices`: what can be asked for, here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench import registry
from bench.environments.interpreter import Interpreter
from bench.errors import BenchError
from bench.needs import weight_bytes
from bench.spec import SCHEMES, Catalog, load_catalog, parse_workload
from bench.types import Availability
from bench.units import NOT_MEASURED, render_bytes, render_number

WORKLOADS = {
    "pp512": "prefill of 512 tokens; any number",
    "tg128": "128 decode steps from an empty cache; any number",
    "pp512+tg128": "both, one after the other",
    "chat": "a prompt and its answer, as a short conversation has them",
    "rag": "a long prompt and a medium answer",
    "reasoning": "a short prompt and a long answer",
    "512/128": "any prompt and any answer: IN/OUT",
    "tg128@d4096": "the same with 4096 tokens in the cache before",
    "tg128x4": "the same for 4 rows at once",
}

JSON_ONLY = {"family", "hub", "fp16_bytes", "bf16_bytes", "adapter", "python", "providers", "unusable", "by_provider"}
"""Left out of the tables, which would not fit a terminal otherwise."""

Row = dict[str, Any]


@click.command("list", short_help="Models, backends, options, workloads, devices.")
@click.argument("what", type=click.Choice(["models", "backends", "options", "workloads", "devices"]))
@click.option("--models", type=click.Path(path_type=Path), multiple=True, help="TOML file with more models.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_command(what: str, models: tuple[Path, ...], as_json: bool) -> None:
    """What can be asked for: models, backends and their options, workloads, and the devices that backends find here."""
    rows = {
        "models": lambda: _models(load_catalog(models)),
        "backends": _backends,
        "options": _options,
        "workloads": _workloads,
        "devices": _devices,
    }[what]()
    if as_json:
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False))
    else:
        _show(list(rows))


def _models(catalog: Catalog) -> Iterator[Row]:
    for model in catalog.models.values():
        arch = model.arch
        yield {
            "id": model.id,
            "params_b": model.params_b,
            "context": arch.context,
            **{f"{scheme}_bytes": weight_bytes(arch, scheme) for scheme in SCHEMES},
            "family": arch.family,
            "hub": model.hub,
            "title": model.title,
        }


def _workloads() -> Iterator[Row]:
    for name, meaning in WORKLOADS.items():
        workload = parse_workload(name)
        yield {
            "name": name,
            "prompt_tokens": workload.prompt_tokens,
            "new_tokens": workload.new_tokens,
            "depth": workload.depth,
            "batch": workload.batch,
            "meaning": meaning,
        }


def _backends() -> Iterator[Row]:
    for name, found, interpreter in _found():
        yield {
            "name": name,
            "adapter": registry.target(name),
            "ok": found.ok,
            "versions": found.versions,
            "interpreter": interpreter.origin if interpreter else None,
            "python": interpreter.label if interpreter else None,
            "providers": found.providers,
            "unusable": found.unusable,
            "reason": found.reason,
            "remedy": found.remedy,
        }


def _options() -> Iterator[Row]:
    for backend in registry.names():
        try:
            adapter = registry.load(backend)
        except BenchError as error:
            click.echo(f"{backend}: {error}", err=True)
            continue
        for name, option in adapter.options.items():
            yield {
                "backend": backend,
                "option": name,
                "default": option.default_for(adapter.provider),
                "by_provider": dict(option.by_provider),
                "choices": ", ".join(option.choices) or None,
                "meaning": option.help + (" (another default for some providers)" if option.by_provider else ""),
            }


def _devices() -> Iterator[Row]:
    for name, found, _ in _found():
        for device in found.devices:
            yield {"backend": name, **asdict(device)}
        if not found.ok:
            click.echo(f"{name}: {found.reason}" + (f"; {found.remedy}" if found.remedy else ""), err=True)
        for provider, why in found.unusable.items() if found.ok else ():
            click.echo(f"{name}: {provider}: {why}", err=True)


def _found() -> Iterator[tuple[str, Availability, Interpreter | None]]:
    """Every backend with what it finds and where; each is probed in a process of its own."""
    from bench.environments.finding import find, remedy  # only these two listings start processes
    from bench.environments.host_file import locate_host_file, read_host_file

    host = read_host_file(locate_host_file())
    for name in registry.names():
        try:
            backend = registry.load(name)
            found = find(backend, registry.target(name), host=host)
        except BenchError as error:
            why = f"{error.what} ({error.cause})" if error.cause else error.what
            yield name, Availability(reason=why, remedy=error.remedy), None
            continue
        told = found.availability
        told = told if told.ok else replace(told, remedy=remedy(found, backend))
        yield name, told, found.interpreter


def _show(rows: Sequence[Row]) -> None:
    """A table on a terminal; aligned columns, two spaces apart and never wrapped, anywhere else."""
    if not rows:
        click.echo("none")
        return
    keys = [key for key in rows[0] if key not in JSON_ONLY]
    cells = [[_text(key, row[key]) for key in keys] for row in rows]
    heads = [key.removesuffix("_bytes").replace("params_b", "params (1e9)").replace("_", " ") for key in keys]
    if sys.stdout.isatty():
        table = Table(box=None, header_style="bold", pad_edge=False)
        for key, head in zip(keys, heads, strict=True):
            table.add_column(head, overflow="fold", no_wrap=key in ("id", "name", "backend", "option", "ok"))
        for line in cells:
            table.add_row(*line)
        Console(markup=False, highlight=False).print(table)
        return
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for line in [heads, *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _text(key: str, value: Any) -> str:
    if value is None or value == {}:
        return NOT_MEASURED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    if key.endswith("_bytes"):
        return render_bytes(value)
    if isinstance(value, float):
        return render_number(value)
    return str(value)
