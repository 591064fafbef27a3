"""One check, and how it says that it failed or that there was nothing to check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.api import Backend
from bench.conformance.models import Variant


class Gap(Exception):
    """The adapter says that it cannot do this, or it cannot execute on this machine; the text says why."""


class Failure(Exception):
    """The adapter breaks its contract; the text says how, with the numbers."""


def demand(condition: object, message: str) -> None:
    """Failure with `message` unless `condition` holds."""
    if not condition:
        raise Failure(message)


@dataclass(frozen=True, slots=True)
class Check:
    """A function of a subject, and of each of its variants where it has any; the docstring's first sentence is what
    it demands.

    `computing`: only for backends that execute a model.
    """

    function: Callable[..., None]
    variants: tuple[Variant, ...] = ()
    computing: bool = True

    @property
    def name(self) -> str:
        return self.function.__name__.replace("_", " ")

    @property
    def contract(self) -> str:
        return " ".join((self.function.__doc__ or "").split("\n\n")[0].split())

    def applies(self, backend: Backend) -> bool:
        return backend.computes or not self.computing

    def arguments(self) -> tuple[tuple[Any, ...], ...]:
        """What the function is called with, after the subject."""
        return tuple((variant,) for variant in self.variants) or ((),)
