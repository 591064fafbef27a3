"""The suite itself: each check sees what it is there to see, gaps tell their reason, the command exits right."""

from __future__ import annotations

import ast
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench import parity
from bench.artifacts.forward import forward
from bench.cli.backend_check import backend_check
from bench.conformance.check import Check, Failure, Gap
from bench.conformance.models import Variant
from bench.conformance.numbers import demand_class
from bench.conformance.source import trespasses
from bench.conformance.subject import Subject
from bench.conformance.suite import CHECKS, judge

BITES = {
    "OtherSignature": ("signatures_are_the_protocols", "support(self, case"),
    "NoVersions": ("probe_tells_versions", "versions are {}"),
    "RaisingProbe": ("probe_explains_an_absent_runtime", "probe() raises RuntimeError: no driver"),
    "NoDetail": ("support_is_pure_and_total", "without reason and detail"),
    "FickleSupport": ("support_is_pure_and_total", "answers Support"),
    "HoldsNothing": ("resident_ratio_is_a_share_of_the_file", "resident_ratio() is 0.0 for int8"),
    "WideIds": ("ids_are_the_argmax_of_the_logits", "not an int32 array"),
    "OtherLogits": ("ids_are_the_argmax_of_the_logits", "are not the argmax"),
    "Forgetful": ("the_same_tokens_give_the_same_logits", "the second time differs"),
    "NoEvidence": ("facts_are_complete", "no evidence"),
    "ZeroThreads": ("facts_are_complete", "threads is 0"),
    "ZeroBytes": ("memory_is_positive_or_none", "kv_bytes is 0"),
    "ClosesOnce": ("closing_twice_does_nothing", "already closed"),
    "ChangesEnvironment": ("the_environment_is_untouched", "environment"),
    "LeavesThreads": ("the_environment_is_untouched", "threads"),
    "DropsRopeScaling": ("exact_holds_in_a_long_context", "rope scaling"),
    "WritesTheTime": ("preparing_twice_gives_the_same_bytes", "stamp differs"),
    "SwallowsInterrupts": ("an_interrupted_prepare_ends", "goes on when interrupted"),
    "RefusesWhatItCan": ("what_support_refuses_does_not_execute", "but it executes: say yes"),
    "FallsBack": ("an_absent_device_is_refused", "took its place"),
    "FeedsOtherCodes": ("the_bits_fed_are_the_artifacts", "blk.0.attn_k.weight"),
    "MixesRows": ("rows_do_not_touch_each_other", "batch and alone differ"),
    "RewindsToZeroOnly": ("rewind_forgets_the_rest", "the logits differ"),
    "AcceptsAnything": ("a_prompt_beyond_the_cache_is_refused", "were accepted"),
    "HalfPlaced": ("facts_are_complete", "add up to 0.5"),
    "SaysExact": ("native_errs_as_its_class_predicts", "where f32 allows"),
    "NeverExact": ("exact_agrees_with_the_reference", "where 1e-04 is allowed"),
}


def check_of(name: str) -> Check:
    """The check, with the few variants that are enough to see a fault."""
    (found,) = (check for check in CHECKS if check.function.__name__ == name)
    wanted = [variant for variant in found.variants if variant.model in ("qwen2", "llama3-long")]
    return Check(found.function, tuple(v for v in wanted if v.scheme == "int8"), found.computing)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broken")


@pytest.mark.parametrize("broken", BITES)
def test_the_check_sees_it(broken: str, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BROKEN_STEPS", raising=False)
    name, said = BITES[broken]
    subject = Subject(f"tests.conformance.broken:{broken}", scratch / broken)
    outcome = judge(check_of(name), subject)
    assert outcome.verdict == "FAIL" and said in outcome.message, outcome
    monkeypatch.setenv("BROKEN_STEPS", "0")  # so that it is removed again


def test_importing_with_effects_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import os, msgspec\nfrom backends.null import Null\nos.environ['X_MADE'] += '1'\nprint('hello')\n"
    (tmp_path / "loud_adapter.py").write_text(text + "class Loud(Null):\n    name = 'loud'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("X_MADE", "0")
    monkeypatch.delitem(sys.modules, "loud_adapter", raising=False)
    monkeypatch.setattr("builtins.print", lambda *words: None)
    found = Subject("loud_adapter:Loud", tmp_path).isolated
    assert {"msgspec"} <= set(found["loaded"])
    assert found["changed"] == ["environment"]
    assert "hello" in found["printed"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import time", "imports time"),
        ("from time import monotonic", "imports time"),
        ("print(1)", "calls print"),
        ("import os\nos.environ['A'] = '1'", "changes os.environ"),
        ("import os\ndel os.environ['A']", "changes os.environ"),
        ("import os\nos.environ.setdefault('A', '1')", "calls os.environ.setdefault"),
        ("while True:\n  try:\n    load()\n    break\n  except OSError:\n    pass", "tries again"),
        (
            "def f():\n  for _ in range(3):\n    try:\n      return load()\n    except OSError:\n      continue",
            "tries again",
        ),
    ],
)
def test_source_that_trespasses_is_seen(text: str, said: str) -> None:
    (found,) = trespasses(ast.parse(text))
    assert said in found[1]


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.environ.get('A') or os.environ['A']",
        "for path in paths:\n  try:\n    found.add(path)\n  except OSError:\n    skipped.add(path)",
        "for path in paths:\n  try:\n    load(path)\n  except OSError as error:\n    raise Bad from error",
    ],
)
def test_source_that_keeps_to_its_own_is_left_alone(text: str) -> None:
    assert not list(trespasses(ast.parse(text)))


def test_a_check_that_is_refused_throughout_is_a_gap_with_its_reason(scratch: Path) -> None:
    def refused(subject: Subject) -> None:
        raise Gap("NOT_UPSTREAM: no such kernel")

    outcome = judge(Check(refused), Subject("null", scratch))
    assert (outcome.verdict, outcome.message) == ("gap", "NOT_UPSTREAM: no such kernel [1]")


def test_every_check_says_what_it_demands() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert all(check.contract.endswith(".") for check in CHECKS)


def test_the_command_prints_a_line_a_check() -> None:
    done = CliRunner().invoke(backend_check, ["null"], standalone_mode=False)
    assert done.return_value == 0, done.output
    *lines, last = done.output.splitlines()
    assert all(line.startswith("pass  ") for line in lines)
    assert last == f"{len(lines)} passed, 0 gaps, 0 failed"


def test_the_command_takes_a_path_and_exits_with_4() -> None:
    done = CliRunner().invoke(backend_check, ["tests.conformance.broken:ZeroBytes"], standalone_mode=False)
    assert done.return_value == 4
    assert "FAIL  memory is positive or none: qwen2-int8-native: cpu: kv_bytes is 0" in done.output
    assert "      demanded: memory() gives for each device positive numbers" in done.output


def test_errors_of_the_declared_size_that_point_elsewhere_are_seen(scratch: Path) -> None:
    """Of a batch too: its rows are judged by the gate's own rules, all rows together."""
    subject, variant = Subject("onnx", scratch / "directions"), Variant(batch=2)
    references = [subject.reference(variant, row) for row in range(2)]
    everywhere = slice(None)
    artifact = subject.artifact(variant)
    for executed, refused in (("a8-g32", False), ("bf16", True)):
        rows = subject.rows(variant)
        logits = np.stack([forward(artifact, ids, ["f32", executed])[executed] for ids in rows])
        size = [parity.predicted_error(references[0], name, everywhere) or 0.0 for name in ("a8-g32", executed)]
        exact = np.stack([reference.logits for reference in references])
        logits = exact + (logits - exact) * np.float32(size[0] / size[1])
        with pytest.raises(Failure, match="a8-g32") if refused else nullcontext():
            demand_class("prefill", logits, ["a8-g32"], references, everywhere)
