"""Providers that tell exactly what a test says; executed as a module, a sampler that reads one of them."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from bench.collector.sampler import sample
from bench.collector.sensors import Denied, Found, Sensor

CARD = "pci:0000:03:00.0"
COUNTER = Sensor(device=CARD, quantity="energy", part="card", kind="counter", source="scripted", period_s=0.02)
POWER = Sensor(device=CARD, quantity="power", part="card", kind="gauge", source="scripted", period_s=0.02)
TEMPERATURE = Sensor(device=CARD, quantity="temperature", part="chip", kind="gauge", source="scripted", pace="state")
LIMIT = Sensor(device=CARD, quantity="power-limit", part="card", kind="gauge", source="scripted", pace="edges")


class Card:
    """A card that draws 40 W: its counter follows the clock. `broken`: what is wrong with it."""

    def __init__(self, broken: str = "", name: str = "scripted"):
        self.broken, self.name = broken, name
        self.warm_c = 80.0
        self.reads: list[list[str]] = []
        self.closed = False

    def probe(self) -> Found:
        if self.broken == "absent":
            return Found(denied=[Denied(what="card", why="no driver", remedy="install it")])
        if self.broken == "hangs":
            time.sleep(3600)
        if self.broken == "dies":
            os._exit(3)
        if self.broken == "raises":
            raise KeyError("nvmlFieldValue_v9")
        return Found(sensors=[COUNTER, POWER, TEMPERATURE, LIMIT], names={CARD: "Scripted 1"}, uuids={CARD: "u-1"})

    def read(self, sensors: Sequence[Sensor]) -> list[float | None]:
        if self.broken == "slow":
            time.sleep(0.02)
        self.reads.append([sensor.quantity for sensor in sensors])
        if self.broken == "raises when read":
            raise OSError(5, "Input/output error")
        told = {"energy": 40 * time.monotonic(), "power": 40.0, "temperature": 61.0, "power-limit": 300.0}
        if self.broken == "still":
            told["energy"] = 71052.0
        if self.broken == "cools" and TEMPERATURE in sensors:
            told["temperature"] = self.warm_c = max(55.0, self.warm_c - 5)
        return [None if self.broken == sensor.quantity else told[sensor.quantity] for sensor in sensors]

    def close(self) -> None:
        self.closed = True


def say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sample([Card(*sys.argv[1:])], iter(sys.stdin.readline, ""), say)
