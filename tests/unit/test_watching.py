"""A sweep's sensors, with a sampler that reads a scripted card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import watching
from bench.collector import sampling
from bench.collector.sampling import Recording, Sampler
from bench.collector.series import Series
from bench.errors import PrerequisiteError
from bench.launch import Launch
from bench.metering import energy
from bench.preparing import Settings
from bench.watching import Sensors
from tests.collector.scripted import POWER, TEMPERATURE


class Silent:
    def __init__(self) -> None:
        self.phases: list[str] = []
        self.said: list[str] = []
        self.progressed: list[tuple[int, int]] = []

    def phase(self, name: str, detail: str = "") -> None:
        self.phases.append(name)
        self.said.append(f"{name} {detail}")

    def progress(self, done: int, total: int) -> None:
        self.progressed.append((done, total))

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
    made, watcher = watched(tmp_path, cool_to_c=70.0, max_wait_s=30.0)
    assert made.sensed and watcher.progressed == []


def test_cooling_down_is_one_phase_that_proceeds(tmp_path: Path) -> None:
    """A log file gets a line for each text of a phase: one a degree would fill it."""
    _, watcher = watched(tmp_path, cool_to_c=60.0, max_wait_s=30.0, meter=("cools",))
    assert watcher.said == ["idle baseline of power", "cool to 60 °C"]
    done = [done for done, _ in watcher.progressed]
    assert done == sorted(done) and done[-1] > 0
    [total] = {total for _, total in watcher.progressed}
    assert total - done[-1] >= 5, "65 °C is the last that is too warm"


def test_without_a_thermometer_nothing_is_waited_for_not_even_at_the_next_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "Sampler", Thermometerless)
    Thermometerless.started = 0
    watcher = Silent()
    sensors = Sensors(Settings(idle_s=3.0, cool_to_c=60.0), watcher)
    for _ in range(2):
        made = launch()
        with (
            pytest.raises(PrerequisiteError, match="no sensor here tells a temperature"),
            sensors.during(made, tmp_path),
        ):
            pass
        assert made.sensed and made.sensed.found.sensors, "the record says what was there"
    assert watcher.phases == [] and Thermometerless.started == 1


class Thermometerless(Sampler):
    started = 0

    def __enter__(self) -> Sampler:
        type(self).started += 1
        super().__enter__()
        self.found = replace(self.found, sensors=[each for each in self.found.sensors if each.quantity == "power"])
        return self


@pytest.mark.parametrize(
    ("readings", "hottest_c"),
    [
        ([[(98, 80.0), (99, 61.0)], [(99, 55.0)]], 61.0),
        ([[(94, 80.0), (95.5, None), (99, None)], [(99, 55.0)]], 55.0),
        ([[(10, 80.0)], []], None),
        ([[(98, 61.0), (99, None)]], 61.0),
    ],
)
def test_only_what_was_read_a_moment_ago_tells_how_warm_a_device_is(
    readings: list[list[tuple[float, float | None]]], hottest_c: float | None
) -> None:
    series = [Series.of(TEMPERATURE, [(round(at_s * 1e9), value) for at_s, value in told]) for told in readings]
    assert watching.hottest_c(Recording(series=series), 100 * 10**9) == hottest_c


def test_a_tool_that_is_called_seldom_is_believed_for_two_calls() -> None:
    slow = Series.of(replace(TEMPERATURE, period_s=20.0), [(70 * 10**9, 80.0)])
    assert watching.hottest_c(Recording(series=[slow]), 100 * 10**9) == 80.0
    assert watching.hottest_c(Recording(series=[slow]), 111 * 10**9) is None


@pytest.mark.parametrize("fails", [0, 1])
def test_why_a_sampler_failed_stands_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int) -> None:
    """At the baseline, and beside a worker after a baseline that was sound."""
    sensors, made = Sensors(Settings(idle_s=0.0), Silent()), [launch(), launch()]
    for number in range(fails + 1):
        if number == fails:
            defaults = {"name": "sensors.jsonl", "module": "tests.collector.absent"}
            monkeypatch.setattr(sampling.Sampler.__init__, "__kwdefaults__", defaults)
        (tmp_path / str(number)).mkdir()
        with sensors.during(made[number], tmp_path / str(number)):
            pass
    log = ["idle.log", "sensors.log"][fails]
    why = energy(0, made[fails]).reason or ""
    assert "No module named" in why and f"({log})" in why, why
    assert "No module named" in (tmp_path / str(fails) / log).read_text()


def test_after_a_worker_the_slowest_sensor_is_awaited(tmp_path: Path) -> None:
    waited: list[float] = []
    sensors = Sensors(Settings(idle_s=0.0), Silent(), sleep=waited.append)
    with sensors.during(launch(), tmp_path) as sampler:
        assert sampler
        sampler.found = replace(sampler.found, sensors=[replace(POWER, period_s=4.0)])
    assert waited == [6.0]


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
