"""Jobs, events and errors survive the way between two processes."""

from __future__ import annotations

import json
import os

import pytest

from bench import errors, protocol
from bench.spec import parse_workload
from bench.types import LoadGroup, Prepared
from tests.fakes import case


def test_a_job_survives_the_pipe() -> None:
    group = LoadGroup(cases=(case(parse_workload("pp512@d64x2"), options={"threads": None, "spin": True}),))
    job = protocol.Job(
        task="measure",
        adapter="a.b:C",
        group=group,
        prepared=Prepared(path="/x", files=("a", "b"), notes={"deep": {"list": [1, 2.5, None]}}),
        budget_s=3.5,
    )
    line = protocol.encode(job)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert protocol.decode(protocol.Job, line) == job


def test_a_field_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="Prepared has no field colour"):
        protocol.decode(protocol.Prepared, b'{"path": "", "files": [], "colour": 1}')


def test_what_is_not_a_number_is_not_sent() -> None:
    with pytest.raises(ValueError, match="JSON"):
        protocol.encode({"error": float("nan")})


@pytest.mark.parametrize(
    "error",
    [
        errors.CaseError("broke", phase="open", where="here", cause="why", remedy="do"),
        errors.PrerequisiteError("missing", remedy="install"),
        errors.InvalidMeasurement("wrong"),
    ],
)
def test_an_error_arrives_as_what_it_was(error: errors.BenchError) -> None:
    arrived = protocol.rebuild(json.loads(protocol.encode(protocol.describe(error))))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert getattr(arrived, "phase", None) == getattr(error, "phase", None)


def test_progress_is_not_a_flood() -> None:
    receive, send = os.pipe()
    events = protocol.Events(send)
    for done in range(1001):
        events.progress(done, 1000)
    os.close(send)
    with os.fdopen(receive) as pipe:
        told = [json.loads(line) for line in pipe]
    assert told[-1]["done"] == 1000
    assert len(told) < 100
