"""A sweep's sensors, with a sampler that reads a scripted card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import watching
from bench.collector import sampling
from bench.collector.sampling import Sampler
from bench.errors import PrerequisiteError
from bench.launch import Launch
from bench.preparing import Settings
from bench.watching import Sensors


class Silent:
    def __init__(self) -> None:
        self.phases: list[str] = []

    def phase(self, name: str, detail: str = "") -> None:
        self.phases.append(name)

    def progress(self, done: int, total: int) -> None:
        pass

    def tick(self) -> None:
        pass


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The card of tests/collector/scripted.py is this machine's only sensor; the meter's words say what is wrong."""
    monkeypatch.setenv("BENCH_SENSORS", "on")
    monkeypatch.setattr(sampling.Sampler.__init__, "__kwdefaults__", {"name": "sensors.jsonl", "module": SCRIPTED})
    monkeypatch.setattr(watching, "TAIL_S", 0.05)
    monkeypatch.setattr(watching, "COOL_S", 0.1)


SCRIPTED = "tests.collector.scripted"


def launch() -> Launch:
    return Launch(launch_id="", index=0, started_at_utc="", versions={}, builder=1)


def watched(folder: Path, **settings: Any) -> tuple[Launch, Silent]:
    watcher, made = Silent(), launch()
    sensors = Sensors(Settings(**{"idle_s": 0.2, "max_wait_s": 0.3, **settings}), watcher)
    with sensors.during(made, folder) as sampler:
        assert isinstance(sampler, Sampler)
    return made, watcher


def test_a_baseline_is_read_once_and_a_recording_beside_each_worker(tmp_path: Path) -> None:
    watcher, launches = Silent(), [launch(), launch()]
    sensors = Sensors(Settings(idle_s=0.2), watcher)
    for number, each in enumerate(launches):
        folder = tmp_path / str(number)
        folder.mkdir()
        with sensors.during(each, folder):
            pass
        assert each.sensed and all(series.known for series in each.sensed.series)
        assert each.idle is launches[0].idle
        assert (folder / "sensors.jsonl").exists() and (folder / "idle.jsonl").exists() == (number == 0)
    assert watcher.phases == ["idle"]
    assert launches[0].idle and len(launches[0].idle.series[0].values) > 5


def test_without_sensors_nothing_is_waited_for_and_nothing_left(tmp_path: Path) -> None:
    watcher, made = Silent(), launch()
    with Sensors(Settings(meter=("absent",)), watcher).during(made, tmp_path) as sampler:
        assert sampler is None
    assert watcher.phases == [] and list(tmp_path.iterdir()) == []
    assert made.sensed and [denied.why for denied in made.sensed.found.denied] == ["no driver"]


def test_switched_off_no_sampler_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_SENSORS", "off")
    made = launch()
    with Sensors(Settings(), Silent()).during(made, tmp_path) as sampler:
        assert sampler is None
    assert made.sensed and "BENCH_SENSORS=off" in made.sensed.found.denied[0].why


def test_a_card_of_61_degrees_is_cool_enough_for_70(tmp_path: Path) -> None:
    made, watcher = watched(tmp_path, cool_to_c=70.0)
    assert made.sensed and "cool" not in watcher.phases[1:]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"cool_to_c": 50.0}, "--cool-to 50: still at 61 °C; raise it, or --max-wait"),
        ({"cool_to_c": 50.0, "meter": ("temperature",)}, "no temperature could be read"),
        ({"cool_to_c": 50.0, "meter": ("absent",)}, "no sensor here tells a temperature"),
    ],
)
def test_what_does_not_get_cool_is_not_measured(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(PrerequisiteError) as caught:
        watched(tmp_path, **settings)
    assert says in str(caught.value)
