"""The `openvino` adapter apart from its numbers: what it supports, refuses, tells and releases; on the CPU."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import openvino
import pytest

from backends.openvino import SCHEMES, OpenVino, devices, failures, ir, weights
from bench.artifacts.reader import open_artifact
from bench.artifacts.synthesize import synthesize
from bench.errors import BusyError, CaseError, PrerequisiteError
from bench.types import Family, LoadGroup, Prepared, Workload
from tests import fakes
from tests.tiny import tiny_arch

ROOT = Path(__file__).parents[2]
ARCH = tiny_arch(hidden=128, ffn=192)
OPTIONS = {name: option.default for name, option in OpenVino.options.items()}
CASE = fakes.case(
    Workload(name="tg8", prompt_tokens=0, new_tokens=8), backend="openvino", arch=ARCH, kv_capacity=16, options=OPTIONS
)
CACHED_MODULES = ("session", "ir", "graph", "devices", "copier", "facts", "compiling", "rounding")


@pytest.fixture(scope="module")
def canonical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("canonical")
    synthesize(folder, model="small", arch=ARCH, scheme="int8", processes=1)
    return folder


@pytest.fixture(scope="module")
def prepared(canonical: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(canonical, tmp_path_factory.mktemp("prepared"))


def prepare(canonical: Path, into: Path) -> Prepared:
    return OpenVino().prepare(CASE, open_artifact(canonical), into, lambda done, total: None)


def group(**changes: Any) -> LoadGroup:
    changes["options"] = {**OPTIONS, **changes.get("options", {})}
    return LoadGroup(cases=(replace(CASE, **changes),))


@pytest.fixture
def without_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    for name in CACHED_MODULES:
        monkeypatch.delitem(sys.modules, f"backends.openvino.{name}", raising=False)
        monkeypatch.delattr(sys.modules["backends.openvino"], name, raising=False)


def test_importing_the_adapter_loads_no_runtime() -> None:
    loads = "import sys, backends.openvino; print([m for m in sys.modules if m.split('.')[0] == 'openvino'])"
    done = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_probe_tells_version_and_devices() -> None:
    told = OpenVino().probe()
    assert told.ok and told.versions == {"openvino": openvino.get_version()}
    assert told.devices[0].kind == "cpu" and told.devices[0].name != "CPU"


@pytest.mark.usefixtures("without_the_runtime")
def test_probe_without_the_runtime_names_the_remedy() -> None:
    told = OpenVino().probe()
    assert not told.ok and told.remedy == "pip install 'openvino>=2026.4'"


@pytest.mark.usefixtures("without_the_runtime")
def test_nothing_is_done_without_the_runtime(prepared: Prepared, tmp_path: Path, canonical: Path) -> None:
    for attempt in (
        lambda: OpenVino().open(group(), prepared),
        lambda: prepare(canonical, tmp_path),
        lambda: OpenVino().mover(replace(CASE, device="GPU")),
    ):
        with pytest.raises(PrerequisiteError, match=r"pip install 'openvino>=2026.4'"):
            attempt()
    assert OpenVino().mover(CASE) is None, "the CPU's memory is probed before the runtime is imported: that is the load"


def test_requirements_are_the_wheel_and_a_page_on_drivers() -> None:
    needs = OpenVino().requirements("gpu")
    assert needs.packages == ("openvino>=2026.4",) and needs.notes and (ROOT / needs.notes.split()[-1]).exists()


def test_schemes_and_families() -> None:
    assert all(OpenVino().support(replace(CASE, scheme=scheme)).ok for scheme in SCHEMES)
    for unknown in (
        replace(CASE, scheme="q4_k_m"),
        replace(CASE, arch=replace(ARCH, family=cast(Family, "martian"))),
    ):
        answer = OpenVino().support(unknown)
        assert (answer.ok, answer.reason) == (False, "NOT_WIRED")


def test_another_scheme_is_not_prepared(tmp_path: Path) -> None:
    artifact: Any = SimpleNamespace(scheme="q8_0")
    with pytest.raises(CaseError, match="q8_0 is not wired") as caught:
        OpenVino().prepare(CASE, artifact, tmp_path, lambda done, total: None)
    assert caught.value.phase == "prepare"


def test_prepared_survives_json_and_lies_on_cache_lines(prepared: Prepared) -> None:
    assert json.loads(json.dumps(prepared.notes)) == prepared.notes
    folder = Path(prepared.path)
    assert sorted(file.name for file in folder.iterdir()) == sorted(prepared.files)
    text = (folder / ir.GRAPH_FILE).read_text()
    offsets = [int(part.split('"')[0]) for part in text.split('offset="')[1:]]
    assert len(offsets) > 30 and all(offset % 64 == 0 for offset in offsets)


def test_progress_is_told(canonical: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    OpenVino().prepare(CASE, open_artifact(canonical), tmp_path, lambda done, total: told.append((done, total)))
    total = len(weights.parts(open_artifact(canonical).names()))
    assert told == [(done, total) for done in range(total + 1)]


def test_memory_counts_weights_and_the_filled_cache(prepared: Prepared) -> None:
    session = OpenVino().open(group(), prepared)
    told = session.facts()
    (empty,) = session.memory()
    assert (empty.device, empty.kv_bytes) == ("cpu", None)
    assert empty.weights_bytes == told.resident_weight_bytes and empty.device_delta_bytes is None
    session.step(np.zeros((1, 5), np.int32))
    (filled,) = session.memory()
    assert filled.kv_bytes == 5 * (told.kv_bytes_per_token or 0) > 0


def test_facts_leave_the_sessions_state_alone(prepared: Prepared) -> None:
    session = OpenVino().open(group(fidelity="exact"), prepared)
    ids = np.arange(6, dtype=np.int32)[None]
    session.step(ids)
    expected = session.step(ids[:, :1])
    session.rewind(0)
    session.step(ids)
    session.facts()
    assert (session.step(ids[:, :1]) == expected).all()


def test_threads_and_precision_are_as_asked_or_refused(prepared: Prepared) -> None:
    told = OpenVino().open(group(options={"threads": 1, "inference_precision": "f32"}), prepared).facts()
    assert (told.threads, told.decode.compute) == (1, "f32")
    try:
        told = OpenVino().open(group(options={"inference_precision": "f16"}), prepared).facts()
    except PrerequisiteError as refusal:
        assert "asked for INFERENCE_PRECISION_HINT f16 and does" in str(refusal)
    else:
        assert told.decode.compute == "f16"


@pytest.mark.parametrize("device", ["gpu", "GPU.1", "nowhere", "97", "HETERO:CPU,GPU"])
def test_a_device_that_is_not_there_is_refused(prepared: Prepared, device: str) -> None:
    if device.upper() in devices.core().available_devices:
        pytest.skip(f"this machine has {device}")
    with pytest.raises(PrerequisiteError) as caught:
        OpenVino().open(group(device=device), prepared)
    assert caught.value.remedy


DAMAGES = {
    "no graph": lambda xml, weights: xml.unlink(),
    "no xml": lambda xml, weights: xml.write_bytes(b"no graph"),
    "half a graph": lambda xml, weights: xml.write_bytes(xml.read_bytes()[:3000]),
    "unknown operation": lambda xml, weights: xml.write_text(xml.read_text().replace('"MatMul"', '"MatMutt"')),
    "no weights": lambda xml, weights: weights.unlink(),
    "truncated weights": lambda xml, weights: weights.write_bytes(weights.read_bytes()[:-64]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_a_case_error(canonical: Path, tmp_path: Path, damage: str) -> None:
    """The harness seals files and checks them before; what gets past it must not end the worker."""
    prepared = prepare(canonical, tmp_path)
    DAMAGES[damage](tmp_path / ir.GRAPH_FILE, tmp_path / ir.WEIGHTS_FILE)
    with pytest.raises(CaseError, match="the prepared IR cannot be read") as caught:
        OpenVino().open(group(), prepared)
    assert caught.value.phase == "open" and "bench cache verify" in str(caught.value.remedy)
    assert "\n" not in str(caught.value) and "src/" not in str(caught.value)


def test_what_does_not_fit_is_refused_and_the_session_lives_on(prepared: Prepared) -> None:
    session = OpenVino().open(group(), prepared)
    with pytest.raises(CaseError, match="no step has been executed"):
        session.logits()
    session.step(np.zeros((1, 10), np.int32))
    with pytest.raises(
        CaseError, match=r"1 rows of 7 tokens after 10 do not fit \(the cache holds 1 rows of 16 tokens"
    ):
        session.step(np.zeros((1, 7), np.int32))
    session.rewind(0)
    for shape in ((2, 1), (1, 0)):
        with pytest.raises(CaseError, match="do not fit"):
            session.step(np.zeros(shape, np.int32))
    assert session.step(np.zeros((1, 16), np.int32)).shape == (1,)


def test_rows_stay_as_many_as_they_were(prepared: Prepared) -> None:
    session = OpenVino().open(group(workload=replace(CASE.workload, batch=3)), prepared)
    session.step(np.zeros((3, 2), np.int32))
    with pytest.raises(CaseError, match="2 rows go on where 3 began") as caught:
        session.step(np.zeros((2, 1), np.int32))
    assert caught.value.remedy == "rewind(0) first"
    session.rewind(0)
    assert session.step(np.zeros((2, 1), np.int32)).shape == (2,)


def test_close_releases_the_model_and_may_be_repeated(prepared: Prepared) -> None:
    session = OpenVino().open(group(), prepared)
    session.step(np.zeros((1, 3), np.int32), want="all")
    compiled = session._compiled
    assert compiled is not None
    loaded = weakref.ref(compiled)
    del compiled
    session.close()
    session.close()
    gc.collect()
    assert loaded() is None
    for attempt in (
        lambda: session.step(np.zeros((1, 1), np.int32)),
        lambda: session.rewind(0),
        session.facts,
        session.memory,
        lambda: session.fed("output_norm.weight"),
    ):
        with pytest.raises(CaseError, match="the session is closed"):
            attempt()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError("Exception from src/x.cpp:1:\n[GPU] CL_OUT_OF_RESOURCES"),
        RuntimeError("[GPU] Exceeded max size of memory allocation: Required 9 bytes"),
        RuntimeError("[GPU] Exceeded max size of memory object allocation: requested 9 bytes"),
    ],
)
def test_out_of_memory_is_told_as_that(error: Exception) -> None:
    """The plugin's words: engine.cpp, engine::check_allocatable; ocl_common.hpp."""
    assert failures.translated(error, "open").what == "out of memory"


def test_own_errors_pass_and_others_lose_the_places_in_the_source() -> None:
    own = BusyError("another sweep")
    assert failures.translated(own, "step") is own
    other = RuntimeError("Exception from src/a.cpp:1:\nCheck 'x == y' failed at src/b.cpp:2:\n[GPU] no\n")
    assert str(failures.translated(other, "step")) == "openvino: [GPU] no (RuntimeError)"
