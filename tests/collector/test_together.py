"""Several providers at one waking: each sensor is read by the one that found it, and nobody is asked for nothing."""

from __future__ import annotations

from collections.abc import Sequence

from bench.collector.providers.together import Together
from bench.collector.sensors import Denied, Found, Sensor


class Folder:
    """Finds a temperature of each of its parts, and tells the length of the part's name."""

    def __init__(self, name: str, *parts: str) -> None:
        self.name, self._parts = name, parts
        self.asked: list[list[str]] = []
        self.closed = False

    def probe(self) -> Found:
        sensors = [
            Sensor(device=self.name, quantity="temperature", part=part, kind="gauge", source="a test")
            for part in self._parts
        ]
        return Found(
            sensors=sensors, denied=[Denied(what=self.name, why="the rest")], uuids={self.name: f"u-{self.name}"}
        )

    def read(self, sensors: Sequence[Sensor]) -> list[float | None]:
        self.asked.append([f"{each.device} {each.part}" for each in sensors])
        return [None if each.part == "broken" else float(len(each.part)) for each in sensors]

    def close(self) -> None:
        self.closed = True


class Broken(Folder):
    def probe(self) -> Found:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


def test_one_that_raises_leaves_the_others() -> None:
    both = Together(Folder("cpu", "a"), Broken("gpu", "b"), Folder("meter", "cc"))
    found = both.probe()
    assert [(denied.what, "UnicodeDecodeError: 'utf-8' codec" in denied.why) for denied in found.denied] == [
        ("cpu", False),
        ("sensors of gpu", True),
        ("meter", False),
    ]
    assert both.read(found.sensors) == [1.0, 2.0]


def test_all_are_one_provider() -> None:
    cores, empty, cards = Folder("cpu", "a", "broken"), Folder("nothing"), Folder("gpu", "a", "long")
    both = Together(cores, empty, cards)
    found = both.probe()
    assert both.name == "cpu+nothing+gpu"
    assert [sensor.id for sensor in found.sensors] == [
        "cpu/temperature/a",
        "cpu/temperature/broken",
        "gpu/temperature/a",
        "gpu/temperature/long",
    ]
    assert [denied.what for denied in found.denied] == ["cpu", "nothing", "gpu"]
    assert found.uuids == {"cpu": "u-cpu", "nothing": "u-nothing", "gpu": "u-gpu"}
    assert both.read(found.sensors) == [1.0, None, 1.0, 4.0]
    assert both.read([found.sensors[3], found.sensors[0]]) == [4.0, 1.0], "in the order that was asked"
    assert both.read([found.sensors[2]]) == [1.0]
    assert cores.asked == [["cpu a", "cpu broken"], ["cpu a"]] and empty.asked == []
    assert cards.asked == [["gpu a", "gpu long"], ["gpu long"], ["gpu a"]]
    both.close()
    assert cores.closed and empty.closed and cards.closed
