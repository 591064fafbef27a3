"""Several providers: asked side by side what they find; and read by one thread, at one waking.

The latter for those whose readings are short and wait for nobody. A thread of its own for each would wake as often for
itself, and they would wait for each other's interpreter lock: beside a model that decodes on all cores each waking is
time taken from it (docs/performance.md).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from bench.collector.sensors import Denied, Found, Provider, Sensor

FILES_S = 5.0

Answer = TypeVar("Answer")


def asked(questions: Sequence[Callable[[], Answer]], within_s: float) -> list[Answer | Exception]:
    """What each returns or raises, asked side by side; TimeoutError of who does not answer within so many seconds.

    That one's thread is left behind: nothing ends a driver that hangs.
    """
    late = TimeoutError(f"no answer within {within_s:.0f} s: a driver may hang")
    answers: list[Answer | Exception] = [late for _ in questions]

    def ask(index: int) -> None:
        try:
            answers[index] = questions[index]()
        except Exception as error:  # a library may raise anything
            answers[index] = error

    threads = [threading.Thread(target=ask, args=(index,), daemon=True) for index in range(len(questions))]
    for thread in threads:
        thread.start()
    until_s = time.monotonic() + within_s
    for thread in threads:
        thread.join(max(0.0, until_s - time.monotonic()))
    return list(answers)


def found_by(watched: Sequence[Provider], within_s: float) -> list[Found]:
    """What each finds; who raises, or does not answer within so many seconds, is denied, and nobody else."""
    answers = asked([partial(_look, provider) for provider in watched], within_s)
    return [
        answer if isinstance(answer, Found) else failed(provider, answer)
        for provider, answer in zip(watched, answers, strict=True)
    ]


def _look(provider: Provider) -> Found:
    """What it finds; it is let go where that is nothing."""
    found = provider.probe()
    if not found.sensors:
        provider.close()
    return found


def failed(provider: Provider, error: Exception) -> Found:
    """Nothing, and why."""
    why = str(error) if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
    return Found(denied=[Denied(what=f"sensors of {provider.name}", why=why)])


class Together:
    """A provider of all that `providers` find; a sensor is read by the one that found it."""

    def __init__(self, *providers: Provider) -> None:
        self._providers = providers
        self._finders: dict[str, Provider] = {}

    @property
    def name(self) -> str:
        return "+".join(provider.name for provider in self._providers)

    def probe(self) -> Found:
        """What each finds, in their order."""
        told = found_by(self._providers, FILES_S)
        found = zip(self._providers, told, strict=True)
        self._finders = {sensor.id: provider for provider, each in found for sensor in each.sensors}
        return Found.of(told)

    def read(self, sensors: Sequence[Sensor]) -> list[float | None]:
        """Of each, from its finder, each of whom is asked once."""
        values: dict[str, float | None] = {}
        for provider in self._providers:
            if own := [sensor for sensor in sensors if self._finders[sensor.id] is provider]:
                values |= zip((sensor.id for sensor in own), provider.read(own), strict=True)
        return [values[sensor.id] for sensor in sensors]

    def close(self) -> None:
        for provider in self._providers:
            provider.close()
