"""A group whose subcommands are imported when they are called: help loads none of them, and none loads another."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from bench.errors import unknown_name


class Lazy(click.Group):
    """Subcommands by import path (`module:attribute`); `kind` and `remedy` are what an unknown one is told with."""

    def __init__(self, *, paths: Mapping[str, str], kind: str, remedy: str, **given: Any):
        super().__init__(**given)
        self._paths, self._kind, self._remedy = paths, kind, remedy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._paths)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._paths:
            return None
        module, _, attribute = self._paths[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self._paths:
            where = self.name if ctx.parent else None
            raise unknown_name(self._kind, args[0], self._paths, where=where, remedy=self._remedy)
        return super().resolve_command(ctx, args)
