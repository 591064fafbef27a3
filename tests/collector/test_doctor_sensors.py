"""What `bench doctor` says of sensors, with a sampler that reads a scripted card."""

from __future__ import annotations

import pytest

from bench.cli import doctor_sensors
from bench.collector import sampling
from bench.collector.machine.fitness import Finding


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The card of tests/collector/scripted.py is this machine's only sensor; the meter's words say what is wrong."""
    defaults = {"name": "sensors.jsonl", "module": "tests.collector.scripted"}
    monkeypatch.setattr(sampling.Sampler.__init__, "__kwdefaults__", defaults)
    monkeypatch.setattr(doctor_sensors, "READ_S", 0.3)


def told(*meter: str) -> dict[str, Finding]:
    return {finding.what.partition(" ")[2] or finding.what: finding for finding in doctor_sensors.findings(meter)}


def test_a_counter_tells_the_power_that_it_means() -> None:
    found = told()
    assert found["energy"].fit and found["energy"].found.startswith("card counts, ")
    assert found["power"].found == "card 40.0 W (Scripted 1)"


def test_a_counter_that_stands_still_is_not_fit() -> None:
    energy = told("still")["energy"]
    assert (energy.fit, energy.found) == (False, "card stands still (Scripted 1)")


def test_what_cannot_be_read_is_said_and_no_energy_is_a_fact() -> None:
    denied, energy = doctor_sensors.findings(["absent"])
    assert denied.lines() == ["!!  card: not read: no driver", "      install it"]
    assert energy.lines()[0] == "--  energy: no sensor: records will say so"


def test_a_sampler_that_fails_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "PROBE_S", 1.0)
    denied, _ = doctor_sensors.findings(["hangs"])
    assert denied.lines() == ["!!  all sensors: not read: no answer within 1 s: a driver may hang"]
