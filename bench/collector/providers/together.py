"""Several providers read by one thread, at one waking: those whose readings are short and wait for nobody.

A thread of its own for each would wake as often for itself, and they would wait for each other's interpreter lock:
beside a model that decodes on all cores each waking is time taken from it (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.collector.sensors import Found, Provider, Sensor


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
        told = [(provider, provider.probe()) for provider in self._providers]
        self._finders = {sensor.id: provider for provider, found in told for sensor in found.sensors}
        return Found.of([found for _, found in told])

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
