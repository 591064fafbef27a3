"""`bench export`: what is here in others' formats, one command a format, imported when it is called."""

from __future__ import annotations

import importlib

import click

from bench.errors import unknown_name

FORMATS = {
    "llama-bench": "bench.cli.export_records:export_records",
    "onnx": "bench.cli.export_onnx:export_onnx",
}


class Formats(click.Group):
    """Subcommands by import path."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(FORMATS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in FORMATS:
            return None
        module, _, attribute = FORMATS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in FORMATS:
            raise unknown_name("format", args[0], FORMATS, where="export", remedy=f"formats: {', '.join(FORMATS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=Formats, short_help="Records or models in others' formats.")
def export() -> None:
    """Write records as another tool writes them, or a model for others' compilers."""
