"""llama.cpp ends its process: the record says how and with which words, and the sweep goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.conformance.models import ARCHS
from tests.gate.conftest import toml
from tests.sweeps.conftest import Bench, Ended

HERE = "tests.llamacpp_crash"


@pytest.fixture
def swept(bench: Bench, tmp_path: Path) -> Bench:
    """`bench run` on a model of three layers."""
    (tmp_path / "models.toml").write_text(toml("small", ARCHS["qwen2"]))

    def execute(*words: str) -> Ended:
        common = ("run", "--models", "models.toml", "--model", "small-int8", "--repetitions", "1")
        return bench(*common, *words, env={"TMPDIR": str(tmp_path)})

    return execute


def test_a_crash_fails_its_case_and_no_other(swept: Bench) -> None:
    ended = swept("--backend", f"{HERE}:CrashesInStep", "--workload", "pp24,tg8,pp8")
    assert ended.code == 4, ended.err
    assert ended.statuses == {"pp24": "failed", "tg8": "ok", "pp8": "ok"}
    (reason,) = [record.reason for record in ended.records if record.status == "failed"]
    assert reason and reason.what == "the worker died of SIGABRT"
    assert reason.cause and reason.cause.endswith("ggml-scripted.cpp:7: not enough space in the buffer")
    assert "Traceback" not in ended.err


def test_a_crash_at_open_leaves_other_backends_alone(swept: Bench) -> None:
    ended = swept("--backend", f"{HERE}:CrashesAtOpen,null", "--workload", "tg8")
    assert ended.code == 4, ended.err
    told = {record.identity.backend: record for record in ended.records}
    assert {name: record.status for name, record in told.items()} == {"crashing": "failed", "null": "unproven"}
    reason = told["crashing"].reason
    assert reason and (reason.phase, reason.what) == ("open", "the worker died of SIGABRT")
    last = reason.cause.split(" | ")[-1] if reason.cause else ""
    assert "llama-model.cpp" in last and "GGML_ASSERT(hparams.n_layer_all > 0" in last
    log = (told["crashing"].path.parent / "worker.log").read_text()
    assert log.strip().splitlines()[-1].startswith(last), "no debugger's lines after the library's own"
