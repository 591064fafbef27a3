"""Instruction sets taken away from the CPU's kernels, in fresh processes: what the evidence names, what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backends.openvino import OpenVino
from bench.artifacts.reader import open_artifact
from bench.artifacts.synthesize import synthesize
from bench.types import Prepared, Workload
from tests import fakes
from tests.tiny import tiny_arch

ROOT = Path(__file__).parents[2]
CASE = fakes.case(
    Workload(name="tg8", prompt_tokens=0, new_tokens=8), backend="openvino", arch=tiny_arch(hidden=128, ffn=192)
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    canonical, into = (tmp_path_factory.mktemp(name) for name in ("canonical", "prepared"))
    synthesize(canonical, model="small", arch=CASE.arch, scheme="int8", processes=1)
    return OpenVino().prepare(CASE, open_artifact(canonical), into, lambda done, total: None)


LOWERED = """
import json, sys
import numpy as np
from dataclasses import replace
from bench.types import LoadGroup, Prepared
from backends.openvino import OpenVino
from tests.unit.test_openvino_isa import CASE
told = json.loads(sys.argv[1])
try:
    case = replace(CASE, options=told["options"])
    session = OpenVino().open(LoadGroup(cases=(case,)), Prepared(**told["prepared"]))
    session.step(np.zeros((1, 4), np.int32))
    facts = session.facts()
    print(json.dumps({"isa": facts.isa, "matmul": facts.decode.kernels["matmul"],
                      "evidence": [entry.claim for entry in facts.evidence]}))
except Exception as error:
    print(json.dumps({"error": type(error).__name__, "says": str(error)}))
"""


def under(instruction_set: str | None, prepared: Prepared, **options: str) -> dict[str, Any]:
    """What a fresh process tells: oneDNN reads the variable once."""
    job = {"options": options, "prepared": {"path": prepared.path, "files": prepared.files, "notes": prepared.notes}}
    environment = {key: value for key, value in os.environ.items() if key != "ONEDNN_MAX_CPU_ISA"}
    if instruction_set:
        environment["ONEDNN_MAX_CPU_ISA"] = instruction_set
    command = [sys.executable, "-c", LOWERED, json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.fixture(scope="module")
def flags() -> str:
    found = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "avx512_vnni" not in found:
        pytest.skip("this processor has no AVX512-VNNI that could be taken away")
    return found


@pytest.mark.usefixtures("flags")
def test_a_lowered_instruction_set_shows_in_the_evidence(prepared: Prepared) -> None:
    whole = under(None, prepared, inference_precision="f32")
    lowered = under("AVX512_CORE", prepared, inference_precision="f32")
    assert "DL Boost" in whole["isa"] and "DL Boost" not in lowered["isa"]
    assert f"kernels may use {lowered['isa']}" in lowered["evidence"]
    assert "ONEDNN_MAX_CPU_ISA=AVX512_CORE" in lowered["evidence"]
    lowest = under("AVX2", prepared, inference_precision="f32", dynamic_quantization_group_size="0")
    assert lowest["isa"] == "Intel AVX2" and "avx2" in lowest["matmul"]
    assert "avx512" in whole["matmul"]


def test_a_lowered_instruction_set_without_a_kernel_says_what_to_add(prepared: Prepared, flags: str) -> None:
    refused = under("AVX2", prepared, inference_precision="f32")
    assert refused["error"] == "CaseError"
    assert "no kernel of the precision asked for under ONEDNN_MAX_CPU_ISA=AVX2" in refused["says"]
    assert "--set dynamic_quantization_group_size=0" in refused["says"]
    if "avx512_bf16" not in flags:
        pytest.skip("this processor's plugin does not choose bf16")
    for name in ("AVX512_CORE", "AVX2"):
        refused = under(name, prepared)
        assert refused["error"] == "CaseError" and "the plugin chose bf16" in refused["says"]
        assert "--set inference_precision=f32" in refused["says"]
