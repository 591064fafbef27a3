"""From what a worker said to a record: exactly, and every status."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from bench import protocol, recording
from bench.environments.interpreter import Interpreter
from bench.errors import BenchError, CaseError, InvalidMeasurement, PrerequisiteError
from bench.facts import PhaseFacts, Placement
from bench.launch import Heard, Launch
from bench.results.record import Record
from bench.situation import Situation
from bench.spec import parse_workload
from tests.fakes import case, facts

GOLDEN = Path(__file__).parents[1] / "golden" / "launch" / "record.json"
SITUATION = Situation(
    host_id="00ff", host={"cpu": "fake"}, kernel="6.0", governor=None, commit="abc", dirty=False, command="bench run"
)
CHECK = {
    "precision_class": "a8-g32",
    "error": 0.025,
    "worst": 0.03,
    "bound": 0.031,
    "predicted": 0.025,
    "alignment": 0.5,
}
EVENTS: list[dict[str, Any]] = [
    {"event": "interpreter", "version": "3.12.0"},
    {"event": "ceiling", "ceiling": {"kind": "cpu", "read_bytes_per_s": [9e10], "llc_bytes": 1 << 25}},
    {"event": "opened", "seconds": 1.5},
    {"event": "first-step", "seconds": 0.25},
    {"event": "facts", "facts": json.loads(protocol.encode(facts(PhaseFacts(activations="a8-g32", compute="f32"))))},
    {
        "event": "gate",
        "checks": [CHECK | {"what": w, "kl_mean": 1e-3, "top1_ratio": 1.0, "reason": None} for w in "pd"],
    },
    {"event": "ceiling", "ceiling": {"kind": "cpu", "read_bytes_per_s": [1.9e10, 1.8e10], "llc_bytes": 1 << 25}},
    {"event": "phase", "name": "consistency", "case": 0},
    {"event": "shape", "case": 0, "check": CHECK | {"what": "tg2", "predicted": None, "reason": None}},
    {
        "event": "sample",
        "case": 0,
        "sample": {"kind": "step", "prefill_s": None, "step_s": [0.0625, 0.0625], "began_ns": 1},
    },
    {"event": "case-done", "case": 0},
    {"event": "ceiling", "ceiling": {"kind": "cpu", "read_bytes_per_s": [2e10], "llc_bytes": 1 << 25}},
    {"event": "memory", "uses": [{"device": "cpu", "weights_bytes": 9, "kv_bytes": 4, "allocator_peak_bytes": None}]},
    {"event": "imported", "packages": {"fake": "1.0"}},
]


def record(events: list[dict[str, Any]], **launch: Any) -> Record:
    heard = Heard()
    for event in events:
        heard.hear(event)
    given = {"launch_id": "01a20000-0000-7000-8000-000000000000", "index": 0, "started_at_utc": "2026-01-01T00:00:00Z"}
    launched = Launch(**{**given, "versions": {"fake": "1.0"}, "builder": 1, "digest": "d", **launch}, heard=heard)
    return recording.case_record(case(parse_workload("tg2")), 0, "key/0", launched, SITUATION)


def test_a_launch_becomes_exactly_this_record() -> None:
    there = Interpreter(python="python3", origin="host file", prefix=("numactl", "-N0"), environment={"A": "secret"})
    launched = record(EVENTS, prepare_s=0.0, page_cache="warm", interpreter=there)
    plain = {**launched.raw(), "record_id": None}
    assert plain == json.loads(GOLDEN.read_text()), json.dumps(plain, indent=1)


def event(error: BenchError, name: str = "case-error") -> dict[str, Any]:
    return {"event": name, "case": 0, **protocol.describe(error)}


WITHOUT_CASE = EVENTS[:6]


@pytest.mark.parametrize(
    ("events", "status", "code"),
    [
        (EVENTS, "ok", None),
        ([e for e in EVENTS if e["event"] != "gate"], "unproven", "no-reference"),
        ([*EVENTS[:-3], event(InvalidMeasurement("inconsistent"))], "invalid", "invalid"),
        ([*WITHOUT_CASE, event(InvalidMeasurement("gate"), "error")], "invalid", "invalid"),
        ([*WITHOUT_CASE, event(CaseError("died"), "error")], "failed", "failed"),
        ([event(PrerequisiteError("no runtime"), "error")], "failed", "prerequisite"),
        (WITHOUT_CASE, "failed", "failed"),
    ],
)
def test_every_status_has_its_reason(events: list[dict[str, Any]], status: str, code: str | None) -> None:
    made = record(events)
    assert (made.status, made.reason and made.reason.code) == (status, code)


def test_a_rate_that_the_memory_cannot_deliver_is_invalid() -> None:
    fast = [e | {"sample": e["sample"] | {"step_s": [0.04, 0.04]}} if e["event"] == "sample" else e for e in EVENTS]
    made = record(fast)
    assert (made.status, made.reason and made.reason.code) == ("invalid", "impossible-rate")


def test_one_interrupted_sample_does_not_hide_that_the_others_are_impossible() -> None:
    at = next(i for i, e in enumerate(EVENTS) if e["event"] == "sample")
    fast, slow = ({**EVENTS[at], "sample": EVENTS[at]["sample"] | {"step_s": [s, s]}} for s in (0.04, 40.0))
    others = [e for e in EVENTS[at + 1 :] if e["event"] != "sample"]
    made = record([*EVENTS[:at], fast, fast, slow, *others])
    assert (made.status, made.reason and made.reason.code) == ("invalid", "impossible-rate")


def test_where_nothing_computed_the_device_asked_for_is_told() -> None:
    asked = replace(case(parse_workload("tg2")), device="gpu:1")
    launched = Launch(
        launch_id="01a20000-0000-7000-8000-000000000000",
        index=0,
        started_at_utc="2026-01-01T00:00:00Z",
        versions={},
        builder=1,
        digest="d",
        heard=Heard(),
    )
    made = recording.case_record(asked, 0, "key/0", launched, SITUATION)
    assert [device.name for device in made.identity.devices] == ["gpu:1"]


def test_a_memory_is_no_ceiling_for_a_device_of_another_kind() -> None:
    host = [
        event if event["event"] != "ceiling" else {**event, "ceiling": {**event["ceiling"], "kind": "gpu"}}
        for event in EVENTS
    ]
    assert record(host).ceiling is None


def test_the_ceiling_is_what_was_probed_right_beside_the_case() -> None:
    ceiling = record(EVENTS).ceiling
    assert ceiling is not None
    assert (ceiling.read_bytes_per_s, ceiling.spread) == (2e10, pytest.approx(0.1))
    noisy = [
        *EVENTS[:-3],
        {"event": "ceiling", "ceiling": {"kind": "cpu", "read_bytes_per_s": [3e10], "llc_bytes": 1 << 25}},
    ]
    assert any("not quiet" in said for said in record(noisy).warnings)


def test_a_worker_that_fails_after_the_case_leaves_its_trace() -> None:
    made = record([*EVENTS, {"event": "error", **protocol.describe(CaseError("died while closing"))}])
    assert made.status == "ok"
    assert any("died while closing" in said for said in made.warnings)


def test_memory_is_that_of_its_own_case() -> None:
    """A session tells it after each case; the peak of a later one must not stand in an earlier one's record."""
    use = {"device": "card", "allocator_peak_bytes": 1000}
    later = {"event": "memory", "at": "case", "case": 1, "uses": [{**use, "allocator_peak_bytes": 9000}]}
    own = {"event": "memory", "at": "case", "case": 0, "uses": [use]}
    made = record([*EVENTS, own, later, {"event": "memory", "at": "end", "uses": later["uses"]}])
    assert [each.allocator_peak_bytes for each in made.memory if each.device == "card"] == [1000]


def test_tensors_that_cannot_be_read_back_are_told() -> None:
    fed = {"equal": 1, "unread": 3, "differing": []}
    assert any("3 tensors" in said for said in record(EVENTS, certificate={"fed": fed}).warnings)


def test_what_placement_refused_did_not_pass() -> None:
    made = record([*WITHOUT_CASE, event(InvalidMeasurement("elsewhere"), "error")])
    assert made.gate is not None
    assert made.gate.verdict == "failed"


def test_what_was_executed_elsewhere_and_allowed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = {"CPU": 0.97, "FPU": 0.03}
    places = tuple(Placement(device=name, matmul_share=share, operations={"X": 1}) for name, share in shares.items())
    told = facts(PhaseFacts(activations="a8-g32", compute="f32"), placement=places)
    fallen = [e | {"facts": json.loads(protocol.encode(told))} if e["event"] == "facts" else e for e in EVENTS]
    strict = record(fallen)
    assert strict.facts is not None and strict.facts.elsewhere_share == pytest.approx(0.03)
    assert (strict.info.allow_fallback, strict.warnings) == (None, [])
    monkeypatch.setattr(SITUATION, "allow_fallback", 0.05)
    allowed, whole = record(fallen), record(EVENTS)
    warning = "3 % of the matrix products not on CPU, 5 % allowed: FPU executes 1 X"
    assert (allowed.info.allow_fallback, allowed.warnings) == (0.05, [warning])
    assert (whole.info.allow_fallback, whole.warnings) == (0.05, [])
    assert whole.facts is not None and whole.facts.elsewhere_share is None
    monkeypatch.setattr(SITUATION, "allow_fallback", None)
    keys = [(each.series_key, each.config_key) for each in (allowed, whole, record(EVENTS))]
    assert len(set(keys)) == 1 and whole.precision_key == record(EVENTS).precision_key != allowed.precision_key


def test_a_backend_that_computes_nothing_is_never_ok() -> None:
    assert record(EVENTS, computes=False).status == "unproven"


def test_the_fate_of_a_case_decides_who_needs_another_launch() -> None:
    heard = Heard()
    assert heard.told(3) == [0, 1, 2], "a worker that said nothing leaves nothing to wait for"
    heard.hear({"event": "phase", "name": "measure", "case": 1})
    heard.done.add(0)
    assert heard.told(3) == [0, 1], "who was being executed is told, who was not is not"
    early = Heard(error=CaseError("load"))
    assert early.told(3) == [0, 1, 2]


def test_canonical_bytes_count_nominal_widths() -> None:
    tiny = case(parse_workload("tg2"))
    arch = tiny.arch
    weights = arch.layers * arch.hidden * (2 * 128 + 2 * 64 + 3 * 160) + arch.vocab * arch.hidden
    assert recording.canonical_weight_bytes(tiny) == weights
    assert asdict(arch)["vocab"] == 300
