"""Instruction sets taken away from torch's libraries: what is refused beforehand, what the evidence names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.pytorch import Cpu, isa, libraries
from bench.conformance.models import Variant
from bench.conformance.subject import Subject
from bench.errors import CaseError, PrerequisiteError

ROOT = Path(__file__).parents[2]
XEON = "fpu avx avx2 fma avx512f avx512dq avx512bw avx512_vnni avx512_bf16 smep amx_bf16 amx_tile amx_int8"
DESKTOP = "fpu avx avx2 fma smep"


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject("cpu", tmp_path_factory.mktemp("isa"))


def on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, key: str = "flags") -> None:
    """Let this be a processor with these flags."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: A CPU\n{key}\t\t: {flags}\n\nprocessor\t: 1\n{key}\t: none\n")
    monkeypatch.setattr(isa.flags, "__defaults__", (cpuinfo,))


@pytest.mark.parametrize(
    ("name", "ceilings"),
    [
        ("amx", ["AVX512_CORE_AMX", "avx512", "AVX512_E4"]),
        ("avx512_vnni", ["AVX512_CORE_VNNI", "avx512", "AVX512_E1"]),
        ("avx512", ["AVX512_CORE", "avx512", "AVX512"]),
        ("avx2", ["AVX2", "avx2", "AVX2"]),
        ("native", []),
    ],
)
def test_a_processor_that_has_it_all_is_held_to_each(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, ceilings: list[str]
) -> None:
    on(monkeypatch, tmp_path, XEON)
    assert list(isa.variables(name).values()) == ceilings


@pytest.mark.parametrize(
    ("flags", "key", "missing", "there", "remedy"),
    [
        (XEON.replace("amx_tile ", ""), "flags", "amx_tile is missing", "amx_bf16, amx_int8", "avx512_vnni, avx512, a"),
        (DESKTOP, "flags", "amx_tile, amx_int8, amx_bf16 are missing", "it has avx, avx2", "avx2, native"),
        ("fp asimd sve2 crc32", "Features", "amx_tile, amx_int8, amx_bf16 are", "it has asimd, sve2", "name one of na"),
        ("", "flags", "are missing", "none of the flags that are known", "name one of native"),
    ],
)
def test_without_amx_the_refusal_names_the_flags_that_are_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, key: str, missing: str, there: str, remedy: str
) -> None:
    on(monkeypatch, tmp_path, flags, key)
    with pytest.raises(PrerequisiteError) as refused:
        isa.variables("amx")
    assert missing in refused.value.what and there in str(refused.value.cause) and remedy in str(refused.value.remedy)
    assert "smep" not in str(refused.value)


SAID = {
    "avx2": "Intel AVX2",
    "avx512": "Intel AVX-512 with AVX512BW, AVX512VL, and AVX512DQ extensions",
    "avx512_vnni": "Intel AVX-512 with Intel DL Boost",
    "native": "Intel AVX-512 with Intel DL Boost and bfloat16 support",
    "amx": "Intel AVX-512 with float16, Intel DL Boost and bfloat16 support and Intel AMX with bfloat16 and 8-bit "
    "integer support",
}


@pytest.mark.parametrize("name", isa.CHOICES)
@pytest.mark.parametrize("said", SAID)
def test_what_onednn_says_must_be_what_was_asked(name: str, said: str) -> None:
    if name in (said, "native"):
        isa.check(name, SAID[said])
    else:
        with pytest.raises(CaseError, match=f"not held to {name}"):
            isa.check(name, SAID[said])


def test_silence_proves_nothing() -> None:
    isa.check("native", None)
    with pytest.raises(CaseError, match="says nothing"):
        isa.check("avx2", None)


def test_an_instruction_set_that_nobody_imposed_is_not_claimed(subject: Subject) -> None:
    if os.environ.get("ONEDNN_MAX_CPU_ISA"):
        pytest.skip("somebody holds this process to an instruction set")
    options = subject.case(Variant()).options | {"isa": "avx2"}
    with (
        pytest.raises(CaseError, match="not held to avx2"),
        subject.opened(Variant(fidelity="native"), options=options),
    ):
        pass


def test_pinning_is_openmps(subject: Subject) -> None:
    case = subject.case(Variant())
    told = {
        pinned: Cpu().environment(replace(case, options={**case.options, "pinning": pinned}))
        for pinned in (None, True, False)
    }
    assert told[True]["OMP_PROC_BIND"] == "close" and told[False]["OMP_PROC_BIND"] == "false"
    assert "OMP_PROC_BIND" not in told[None]


WORKER = """
import json, os, sys
import numpy as np
import torch
from dataclasses import replace
from bench.conformance.subject import Subject
from bench.conformance.models import Variant
from pathlib import Path
subject = Subject("cpu", Path(sys.argv[1]))
told = json.loads(sys.argv[2])
options = subject.case(Variant()).options | told["options"]
with subject.opened(Variant(fidelity="native", scheme=told["scheme"]), options=options) as session:
    ids = session.step(np.arange(20, dtype=np.int32)[None])
    logits = session.logits()
    facts = session.facts()
print(json.dumps({"isa": facts.isa, "kernels": facts.decode.kernels,
                  "prefill": facts.prefill.kernels, "logits": logits[0, :8].tolist(),
                  "evidence": [f"{e.source}: {e.claim}" for e in facts.evidence],
                  "left": [str(p) for p in Path("/tmp").glob(f"perf-{os.getpid()}.map")]}))
"""


def under(subject: Subject, name: str, scheme: str = "int8", **options: Any) -> dict[str, Any]:
    """What a fresh process tells, started as a worker is: the libraries read their variables once."""
    case = subject.case(Variant())
    asked = {"isa": name, **options}
    variables = Cpu().environment(replace(case, options={**case.options, **asked}))
    job = json.dumps({"options": asked, "scheme": scheme})
    clean = {key: value for key, value in os.environ.items() if key not in isa.TOLD}
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(subject.scratch), job],
        capture_output=True,
        text=True,
        env={**clean, **variables},
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.fixture(scope="module")
def native(subject: Subject) -> dict[str, Any]:
    if "avx512_vnni" not in isa.flags():
        pytest.skip("this processor has no AVX512-VNNI that could be taken away")
    return under(subject, "native")


def test_avx2_names_other_kernels_than_native(subject: Subject, native: dict[str, Any]) -> None:
    lowered = under(subject, "avx2")
    assert "avx512" in native["kernels"]["generated"] and "avx2" in lowered["kernels"]["generated"]
    assert "avx512" not in lowered["kernels"]["generated"]
    assert lowered["isa"] == "Intel AVX2" != native["isa"]
    assert "oneDNN gemm_api" in lowered["kernels"]["libraries"]
    for line in ("environment: ONEDNN_MAX_CPU_ISA=AVX2", "environment: ATEN_CPU_CAPABILITY=avx2"):
        assert line in lowered["evidence"] and line not in native["evidence"]
    assert any("ATen's own kernels: AVX2" in line for line in lowered["evidence"])
    assert not native["left"] and not lowered["left"], "oneDNN's list stays in a folder that all share"


@pytest.mark.parametrize("name", ["avx512_vnni", "avx512", "avx2"])
def test_the_numbers_are_the_same_under_each(subject: Subject, native: dict[str, Any], name: str) -> None:
    """Without VNNI int8 products saturate in 16 bits: the logits were off by a tenth before signs were told apart."""
    lowered = under(subject, name)
    assert lowered["isa"] != native["isa"]
    assert lowered["logits"] == pytest.approx(native["logits"], rel=1e-4, abs=1e-4)
    called = [line for line in lowered["evidence"] if line.startswith("the product that is called")]
    assert ("positive and negative" in called[0]) == (name != "avx512_vnni")


def test_bf16_is_multiplied_by_a_kernel_that_names_it(subject: Subject, native: dict[str, Any]) -> None:
    assert native["isa"]
    told = under(subject, "native", scheme="bf16")
    if "avx512_bf16" not in isa.flags():
        pytest.skip("this processor has no bf16")
    assert "brg" in told["prefill"]["libraries"] and "bf16" in told["prefill"]["libraries"]
    assert "oneDNN" not in told["kernels"]["libraries"], "one row goes through ATen's own"


def test_pinned_threads_say_where_they_are(subject: Subject) -> None:
    told = under(subject, "native", pinning=True)
    assert "environment: OMP_PROC_BIND=close" in told["evidence"]
    assert any(line.startswith("/proc/self/status: Cpus_allowed_list: ") for line in told["evidence"])


@pytest.mark.parametrize(
    ("line", "calls"),
    [
        (
            "onednn_verbose,v1,primitive,exec,cpu,matmul,brg_matmul:avx512_core_amx,undef,src:s8::blocked:ab::f0,,,4x64,1",
            ["oneDNN brg_matmul:avx512_core_amx"],
        ),
        ("onednn_verbose,v1,primitive,exec,cpu,gemm_api,,undef,src_s8::blocked:ab:f0,,,1x2,1", ["oneDNN gemm_api"]),
        ("onednn_verbose,v1,primitive,info,template:operation,engine,primitive,implementation", []),
        ("MKL_VERBOSE SGEMM(T,N,128,4,64,0x7fff,0x5620) 166.57us CNR:OFF", ["MKL SGEMM"]),
        ("MKL_VERBOSE oneMKL 2024.0 Update 2 Product build 20240605", []),
        ("something else", []),
    ],
)
def test_lines_of_the_libraries(line: str, calls: list[str]) -> None:
    assert libraries.Said((line,)).calls == calls


def test_kernels_are_listed_once_and_the_list_is_taken_away() -> None:
    path = Path("/tmp/perf-999999999.map")  # no process has this number
    path.write_text(
        "7f00 40 jit_avx512_core_amx_gemm_kern.3\n7f01 40 jit_avx512_core_u8_copy_an_kern_t.0\n"
        "7f02 40 jit_avx512_core_gemm_s8u8s32_kern_t.1\n7f03 40 jit_avx512_core_gemm_s8u8s32_kern_t.2\n"
        "7f04 40 jit_brgemm_kernel_t.5\n7f05 40 jit_brgemm_matmul_copy_b_transposed_t.6\n7f06 40 jit_uni_eltwise.1\n"
    )
    found = libraries.generated(999999999)
    assert {"jit_avx512_core_amx_gemm", "jit_avx512_core_gemm_s8u8s32", "jit_brgemm_kernel"} <= set(found)
    assert not [name for name in found if "copy" in name or "eltwise" in name] and not path.exists()
    libraries._lists.pop().close()
