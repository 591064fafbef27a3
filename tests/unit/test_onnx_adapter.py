"""The `onnx` adapter apart from its numbers: what it supports, refuses, tells and releases."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from backends.onnx import Onnx, graph, providers
from backends.onnx.failures import translated
from backends.onnx.weights import PAGE_BYTES, WEIGHTS_FILE
from bench.artifacts.reader import open_artifact
from bench.artifacts.synthesize import synthesize
from bench.attest import misplaced
from bench.errors import CaseError, PrerequisiteError
from bench.plan import default_options
from bench.types import Arch, Case, LoadGroup, Prepared, Support, Workload

ARCH = Arch(
    family="qwen2",
    layers=2,
    hidden=128,
    heads=4,
    kv_heads=2,
    head_dim=32,
    ffn=192,
    vocab=512,
    context=256,
    rope_theta=10_000.0,
    norm_eps=1e-5,
    tied=False,
)
CASE = Case(
    model="small",
    scheme="int8",
    weights="synthetic",
    arch=ARCH,
    backend="onnx",
    device=None,
    provider=None,
    fidelity="native",
    workload=Workload(name="tg8", prompt_tokens=0, new_tokens=8),
    kv_capacity=16,
    options=default_options(Onnx()),
)


def prepared_as(folder: Path, **changes: object) -> Prepared:
    scheme = str(changes.pop("scheme", "int8"))
    arch = replace(ARCH, **changes)
    synthesize(folder, model="small", arch=arch, scheme=scheme, processes=1)
    (folder / "prepared").mkdir()
    case = replace(CASE, arch=arch, scheme=scheme)
    return Onnx().prepare(case, open_artifact(folder), folder / "prepared", lambda done, total: None)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepared_as(tmp_path_factory.mktemp("onnx"))


def group(**changes: object) -> LoadGroup:
    return LoadGroup(cases=(replace(CASE, **changes),))


def supported(depth: int, prompt: int, batch: int, chunk: int = 512, provider: str | None = None) -> Support:
    workload = Workload(name="x", prompt_tokens=prompt, new_tokens=4, depth=depth, batch=batch, chunk=chunk)
    return Onnx().support(replace(CASE, workload=workload, provider=provider))


def test_importing_the_adapter_loads_no_runtime() -> None:
    loads = "import sys, backends.onnx; print([m for m in ('onnxruntime', 'onnx', 'numpy.f2py') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("depth", "prompt", "batch", "chunk", "fits"),
    [
        (0, 512, 4, 512, True),
        (0, 513, 4, 512, True),  # the second step has one token
        (0, 514, 4, 512, False),
        (16, 0, 4, 512, True),
        (16, 1, 4, 512, True),
        (1, 16, 4, 512, False),
        (16, 16, 4, 512, False),
        (16, 16, 1, 512, True),
        (0, 4096, 1, 512, True),
    ],
)
def test_support_knows_when_attention_refuses_a_batch(
    depth: int, prompt: int, batch: int, chunk: int, fits: bool
) -> None:
    answer = supported(depth, prompt, batch, chunk)
    assert answer.ok == fits
    assert fits or (answer.reason == "NOT_UPSTREAM" and "GroupQueryAttention" in str(answer.detail))
    assert supported(depth, prompt, batch, chunk, provider="CUDAExecutionProvider").ok


@pytest.mark.parametrize("scheme", ["bf16", "q4_k_m", "nonsense"])
def test_other_schemes_are_not_wired(scheme: str) -> None:
    assert Onnx().support(replace(CASE, scheme=scheme)).reason == "NOT_WIRED"


def test_probe_tells_versions_and_providers() -> None:
    told = Onnx().probe()
    assert told.ok and told.versions["onnxruntime"] == onnxruntime.__version__
    assert "CPUExecutionProvider" in told.providers and told.devices[0].kind == "cpu"


def test_probe_without_the_runtime_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "backends.onnx.providers")
    monkeypatch.delattr(sys.modules["backends.onnx"], "providers")
    told = Onnx().probe()
    assert not told.ok and told.remedy == "pip install 'onnxruntime>=1.24' 'onnx>=1.21'"


def test_open_and_prepare_without_the_runtime_are_refused(
    monkeypatch: pytest.MonkeyPatch, prepared: Prepared, tmp_path: Path
) -> None:
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("session", "loading", "preparing", "graph", "building", "contrib", "standard", "providers"):
        monkeypatch.delitem(sys.modules, f"backends.onnx.{name}", raising=False)
        monkeypatch.delattr(sys.modules["backends.onnx"], name, raising=False)
    with pytest.raises(PrerequisiteError, match="pip install"):
        Onnx().open(group(), prepared)
    with pytest.raises(PrerequisiteError, match="pip install"):
        prepared_as(tmp_path)


def test_prepared_survives_json_and_lies_on_pages(prepared: Prepared) -> None:
    assert json.loads(json.dumps(prepared.notes)) == prepared.notes
    folder = Path(prepared.path)
    assert sorted(file.name for file in folder.iterdir()) == sorted(prepared.files)
    models = [graph.load(folder / f"{fidelity}.onnx") for fidelity in ("native", "exact")]
    assert [graph.accuracy_levels(model) for model in models] == [{4}, {0}]
    stored = graph.stored_in(models[0])
    assert stored == graph.stored_in(models[1])
    assert all(entry.offset % PAGE_BYTES == 0 for entry in stored.values())


def test_facts_are_those_of_the_session(prepared: Prepared) -> None:
    session = Onnx().open(group(options={**CASE.options, "threads": 1}), prepared)
    facts = session.facts()
    assert (facts.threads, facts.kv_cache, facts.weights) == (1, "f32", "int8 group 32")
    assert facts.prefill.activations == facts.decode.activations == "a8-g32"
    assert facts.decode.kernels["matmul"] == "MatMulNBits on CPUExecutionProvider"
    assert misplaced(facts) is None
    (place,) = facts.placement
    assert place.matmul_share == 1 and place.operations["MatMulNBits"] == 2 * 5 + 1
    assert facts.kv_bytes_per_token == 2 * 2 * 64 * 4
    assert facts.embedding_bytes == 512 * 128 * 9 // 8
    assert {e.source for e in facts.evidence} >= {"native.onnx", "InferenceSession.get_session_options"}
    (used,) = session.memory()
    assert used.kv_bytes == 16 * facts.kv_bytes_per_token and used.allocator_peak_bytes is None
    session.close()


def test_exact_facts_and_resident_bytes(prepared: Prepared, tmp_path: Path) -> None:
    exact = Onnx().open(group(fidelity="exact"), prepared).facts()
    assert exact.decode.activations == "f32"
    assert exact.resident_weight_bytes is not None and exact.embedding_bytes is not None
    tied = Onnx().open(group(fidelity="exact"), prepared_as(tmp_path, tied=True)).facts()
    assert tied.embedding_bytes == 0
    assert tied.resident_weight_bytes == exact.resident_weight_bytes - exact.embedding_bytes


def test_float16_products_are_held_as_float32(tmp_path: Path) -> None:
    facts = Onnx().open(group(scheme="fp16"), prepared_as(tmp_path, scheme="fp16", tied=True)).facts()
    assert facts.weights == "f16 held as f32" and facts.decode.activations == "f32"
    assert facts.embedding_bytes == 512 * 128 * 2
    assert facts.resident_weight_bytes is not None and facts.resident_weight_bytes > 512 * 128 * 6
    assert misplaced(facts) is None


def test_threads_default_to_the_physical_cores(prepared: Prepared) -> None:
    assert Onnx().open(group(), prepared).facts().threads == providers.physical_cores() >= 1


def test_damaged_files_are_a_case_error(prepared: Prepared, tmp_path: Path) -> None:
    (tmp_path / "native.onnx").write_bytes(b"no graph")
    with pytest.raises(CaseError) as caught:
        Onnx().open(group(), replace(prepared, path=str(tmp_path)))
    assert caught.value.phase == "open" and "cache verify" in str(caught.value)
    (tmp_path / "native.onnx").write_bytes((Path(prepared.path) / "native.onnx").read_bytes())
    weights = (Path(prepared.path) / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CaseError) as caught:
        Onnx().open(group(), replace(prepared, path=str(tmp_path)))
    assert "prepared graph cannot be loaded" in str(caught.value)


def test_close_releases_the_model_and_may_be_repeated(prepared: Prepared) -> None:
    session = Onnx().open(group(), prepared)
    session.step(np.zeros((1, 3), np.int32), want="all")
    with pytest.raises(CaseError):
        session.step(np.zeros((1, 99), np.int32))
    assert session._loaded
    loaded = weakref.ref(session._loaded.decode)
    session.close()
    session.close()
    gc.collect()
    assert loaded() is None
    with pytest.raises(CaseError, match="closed"):
        session.step(np.zeros((1, 1), np.int32))


def test_a_graph_that_cannot_be_loaded_names_commands_that_help() -> None:
    """`bench prepare` makes artifacts, not what an adapter prepared from them."""
    error = translated(RuntimeError("External data file is out of bounds"), "open")
    assert "bench cache verify" in str(error) and "bench prepare" not in str(error)
