"""The sampler, inside this process and as one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.collector import sampler, sampling
from bench.collector.sampler import TRIALS, sample
from bench.collector.sampling import Sampler, recorded
from tests.collector.scripted import CARD, Card

MODULE = "tests.collector.scripted"


def until(reads: list[list[str]], count: int) -> None:
    deadline = time.monotonic() + 30
    while len(reads) < count and time.monotonic() < deadline:
        time.sleep(0.005)


def sampled(card: Card, edges: int = 0) -> list[dict[str, Any]]:
    """What a sampler of `card` says, with so many edges asked for after its first readings."""
    said: list[dict[str, Any]] = []

    def lines() -> Iterator[str]:
        until(card.reads, TRIALS + (1 if card.broken == "slow" else 4))
        for _ in range(edges):
            before = len(card.reads)
            yield "\n"
            until(card.reads, before + 1)

    sample([card], lines(), said.append)
    return said


def test_what_was_found_is_said_first_and_the_cost_last() -> None:
    card = Card()
    said = sampled(card)
    assert [each["quantity"] for each in said[0]["found"]["sensors"]] == [
        "energy",
        "power",
        "temperature",
        "power-limit",
    ]
    cost = said[-1]["cost"]
    assert cost["cpu_s"] >= 0 and cost["wall_s"] > 0
    assert cost["providers"]["scripted"]["reads"] == len(said) - 2 == len(card.reads) - TRIALS
    assert card.closed


def test_all_is_read_first_and_last_and_power_most_often() -> None:
    card = Card()
    sampled(card)
    everything = ["energy", "power", "temperature", "power-limit"]
    _, first, *others, last = card.reads[TRIALS - 1 :]
    assert first == last == everything
    assert ["energy", "power"] in others
    assert all("power-limit" not in read for read in others)


def test_an_edge_reads_everything_at_once() -> None:
    card = Card()
    sampled(card, edges=2)
    assert sum("power-limit" in read for read in card.reads) >= 3


def test_readings_lie_between_their_two_times() -> None:
    began_ns = time.monotonic_ns()
    said = sampled(Card())
    for line in said[1:-1]:
        first_ns, last_ns = line["at_ns"]
        assert began_ns <= first_ns <= last_ns <= time.monotonic_ns()
        if "0" in line["values"]:
            assert 40e-9 * first_ns <= line["values"]["0"] <= 40e-9 * last_ns


def test_who_answers_slowly_is_asked_seldom_and_says_so() -> None:
    card = Card("slow")
    said = sampled(card)
    energy, *_ = said[0]["found"]["sensors"]
    assert energy["period_s"] >= 2.0, "20 ms are 1 % of this"
    assert len(said) < 6


def test_without_sensors_it_says_why_and_ends() -> None:
    found, cost = sampled_at_once(Card("absent"))
    assert found["found"]["denied"] == [{"what": "card", "why": "no driver", "remedy": "install it", "of_energy": True}]
    assert cost["cost"]["providers"] == {}


def sampled_at_once(card: Card) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    sample([card], iter(()), said.append)
    return said


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("hangs", "no answer within 1 s: a driver may hang"),
        ("raises", "KeyError: 'nvmlFieldValue_v9'"),
        ("raises when read", "OSError: [Errno 5] Input/output error"),
    ],
)
def test_who_hangs_or_raises_is_denied_alone(monkeypatch: pytest.MonkeyPatch, broken: str, why: str) -> None:
    """Libraries raise what they do not name (a binding without a function), and a driver that hangs answers nobody."""
    monkeypatch.setattr(sampler, "ANSWER_S", 1.0)
    first, last, said = Card(name="before"), Card(name="behind"), list[dict[str, Any]]()
    sample([first, Card(broken), last], iter(()), said.append)
    assert said[0]["found"]["denied"] == [
        {"what": "sensors of scripted", "why": why, "remedy": None, "of_energy": True}
    ]
    assert len(said[0]["found"]["sensors"]) == 8 and said[-1]["cost"]["providers"].keys() == {"before", "behind"}
    assert first.closed and last.closed


def test_what_it_started_is_in_its_cost() -> None:
    """A vendor's tool takes more than the sampler that calls it."""

    class Calling(Card):
        def close(self) -> None:
            busy = "import time\nwhile time.process_time() < 0.5: pass"
            subprocess.run([sys.executable, "-S", "-c", busy], check=True)

    before = os.times()
    said: list[dict[str, Any]] = []
    sample([Calling()], iter(()), said.append)
    assert said[-1]["cost"]["cpu_s"] >= before.user + before.system + 0.5


def test_a_process_of_its_own_leaves_series(tmp_path: Path) -> None:
    with Sampler(tmp_path, module=MODULE) as sampler:
        assert sampler.found.names == {CARD: "Scripted 1"}
        time.sleep(0.3)
        sampler.edge()
    left = recorded(sampler.path)
    energy, power, temperature, limit = left.series
    assert len(energy.values) >= 4 and (power.values == 40).all()
    assert energy.values == pytest.approx(40e-9 * energy.at_ns, abs=40 * 0.5)
    assert temperature.values[0] == 61 and limit.values[-1] == 300
    assert left.cost is not None and left.cost["wall_s"] >= 0.3
    assert not (tmp_path / "sensors.log").exists()


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    with Sampler(tmp_path, module=MODULE) as sampler:
        process = psutil.Process(sampler.pid)
        sampler.hang_up()
        process.wait(timeout=30)


def test_why_it_ended_is_the_last_line_of_its_log(tmp_path: Path) -> None:
    with Sampler(tmp_path, module="tests.collector.absent", name="idle.jsonl") as sampler:
        [denied] = sampler.recording().found.denied
    assert "No module named 'tests.collector.absent'" in denied.why or "No module named tests" in denied.why
    assert denied.why.endswith("(idle.log)")
    sampler.forget()
    assert [path.name for path in tmp_path.iterdir()] == ["idle.log"], "what it said stays"


@pytest.mark.parametrize(
    ("broken", "why"), [("hangs", "no answer within 1 s"), ("dies", "ended before it had looked for sensors")]
)
def test_a_sampler_that_does_not_answer_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, why: str
) -> None:
    monkeypatch.setattr(sampling, "PROBE_S", 1.0)
    with Sampler(tmp_path, (broken,), module=MODULE) as sampler:
        assert not sampler.found.sensors
        [denied] = sampler.found.denied
        assert why in denied.why
        sampler.edge()


def test_of_a_killed_sampler_whole_lines_remain(tmp_path: Path) -> None:
    path = tmp_path / "sensors.jsonl"
    with Sampler(tmp_path, module=MODULE) as sampler:
        time.sleep(0.2)
    whole = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*whole[:3], whole[3][:7]]))
    left = recorded(path)
    assert left.cost is None and len(left.series[0].values) == 2
    assert recorded(tmp_path / "none.jsonl").found == type(left.found)()
    assert sampler.found.sensors
