"""The ONNX graphs against the float32 reference: exact agrees, native errs as predicted, all ways of stepping agree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from backends.onnx import Onnx, graph, standard_weights
from backends.onnx.loading import _prompt_sizes
from backends.onnx.session import OnnxSession
from backends.onnx.weights import HEAD, TABLE, WEIGHTS_FILE
from bench.artifacts.forward import forward
from bench.artifacts.reader import CanonicalArtifact, open_artifact
from bench.artifacts.reference import gate_ids
from bench.artifacts.synthesize import synthesize
from bench.errors import CaseError
from bench.facts import precision_class
from bench.types import Arch, Case, Fidelity, Float32, Int32, LoadGroup, Prepared, RopeScaling, Workload

CAPACITY = 48
LLAMA = Arch(
    family="llama",
    layers=3,
    hidden=256,
    heads=8,
    kv_heads=2,
    head_dim=32,
    ffn=352,
    vocab=1024,
    context=256,
    rope_theta=10_000.0,
    norm_eps=1e-5,
    tied=False,
)
SCALING = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=32)
ARCHS = {
    "llama": LLAMA,
    "llama-tied": replace(LLAMA, tied=True),
    "llama3-rope": replace(LLAMA, rope_theta=500_000.0, rope_scaling=SCALING),
    "qwen2": replace(LLAMA, family="qwen2", norm_eps=1e-6),
    "qwen2-tied": replace(LLAMA, family="qwen2", tied=True),
    "qwen3": replace(LLAMA, family="qwen3", head_dim=64),
    "qwen3-tied": replace(LLAMA, family="qwen3", head_dim=64, tied=True),
}
SCHEMES = ("int8", "int4", "fp16")
DIALECTS = ("contrib", "opset21", "opset17")
FORMS = (("contrib", "dynamic"), *((dialect, shapes) for dialect in DIALECTS[1:] for shapes in ("dynamic", "static")))


@dataclass
class Model:
    artifact: CanonicalArtifact
    prepared: Prepared
    ids: Int32
    expected: dict[str, Float32]
    shapes: str = "dynamic"

    @contextmanager
    def opened(self, fidelity: Fidelity, batch: int = 1) -> Iterator[OnnxSession]:
        asked = case(self.artifact, fidelity, batch, self.prepared.notes["dialect"], self.shapes)
        with closing(Onnx().open(LoadGroup(cases=(asked,)), self.prepared)) as session:
            yield session


def case(artifact: CanonicalArtifact, fidelity: Fidelity, batch: int, dialect: str, shapes: str = "dynamic") -> Case:
    return replace(
        PLAIN,
        scheme=artifact.scheme,
        arch=artifact.arch,
        fidelity=fidelity,
        workload=replace(PLAIN.workload, batch=batch),
        options={"threads": 2, "dialect": dialect, "shapes": shapes},
    )


PLAIN = Case(
    model="small",
    scheme="int8",
    weights="synthetic",
    arch=LLAMA,
    backend="onnx",
    device=None,
    provider=None,
    fidelity="exact",
    workload=Workload(name="pp32", prompt_tokens=32, new_tokens=0),
    kv_capacity=CAPACITY,
)


def made(folder: Path, name: str, scheme: str, dialect: str = "contrib", shapes: str = "dynamic") -> Model:
    canonical, prepared = folder / "canonical", folder / "prepared"
    canonical.mkdir()
    prepared.mkdir()
    synthesize(canonical, model=name, arch=ARCHS[name], scheme=scheme, processes=1)
    artifact = open_artifact(canonical)
    ids = gate_ids(artifact)
    ready = Onnx().prepare(case(artifact, "exact", 1, dialect), artifact, prepared, lambda done, total: None)
    classes = ("f32", "a8-g32", "f32+kv16")
    return Model(artifact, ready, ids, forward(artifact, ids, classes), shapes)


@pytest.fixture(scope="module", params=list(product(ARCHS, SCHEMES, DIALECTS)), ids="-".join)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    name, scheme, dialect = request.param
    return made(tmp_path_factory.mktemp("onnx"), name, scheme, dialect)


@pytest.fixture(scope="module", params=FORMS, ids="-".join)
def qwen2(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    dialect, shapes = request.param
    return made(tmp_path_factory.mktemp("onnx"), "qwen2", "int8", dialect, shapes)


@pytest.fixture(scope="module")
def contrib(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return made(tmp_path_factory.mktemp("onnx"), "qwen2", "int8")


def relative_error(logits: Float32, expected: Float32) -> float:
    centred = expected - expected.mean(axis=-1, keepdims=True)
    return float(np.linalg.norm(logits - expected) / np.linalg.norm(centred))


def all_logits(session: OnnxSession, ids: Int32) -> Float32:
    session.rewind(0)
    session.step(ids, want="all")
    return session.logits().copy()


def test_exact_agrees_with_the_reference(model: Model) -> None:
    with model.opened("exact") as session:
        assert relative_error(all_logits(session, model.ids[None])[0], model.expected["f32"]) < 1e-5


def test_native_errs_as_its_declared_class_predicts(model: Model) -> None:
    with model.opened("native") as session:
        error = relative_error(all_logits(session, model.ids[None])[0], model.expected["f32"])
        told = session.facts()
        declared = precision_class(told.prefill, told.kv_cache)
    if declared == "f32":
        assert error < 1e-5
    else:
        predicted = relative_error(model.expected[declared], model.expected["f32"])
        print(f"native / predicted = {error / predicted:.3f} ({error:.2e})")
        assert 0.8 <= error / predicted <= 1.25


def test_fed_equals_the_artifact_bit_by_bit(model: Model) -> None:
    with model.opened("native") as session:
        for name in model.artifact.names():
            fed = session.fed(name)
            assert fed is not None and fed.same_bits(model.artifact.tensor(name)), name
        assert session.fed("blk.0.no_such.weight") is None


def test_batch_rows_agree_with_each_row_alone(model: Model) -> None:
    rows = np.stack([np.roll(model.ids, shift) for shift in (0, 3, 11, 20)])
    with model.opened("exact", batch=4) as session:
        together = all_logits(session, rows)
        session.rewind(31)
        session.step(rows[:, 31:])
        decoded = session.logits().copy()
        alone = np.concatenate([all_logits(session, row[None]) for row in rows])
    assert relative_error(together[0], model.expected["f32"]) < 1e-5
    assert relative_error(together, alone) < 1e-5
    assert relative_error(decoded, alone[:, -1]) < 1e-5


def test_chunks_and_single_tokens_agree_with_one_step(qwen2: Model) -> None:
    ids = qwen2.ids[None]
    with qwen2.opened("exact") as session:
        whole = all_logits(session, ids)
        for cuts in ([16, 16], [7, 20, 5], [20] + [1] * 12, [1] * 32):
            session.rewind(0)
            start, parts = 0, []
            for count in cuts:
                session.step(ids[:, start : start + count], want="all")
                parts.append(session.logits().copy())
                start += count
            assert relative_error(np.concatenate(parts, axis=1), whole) < 1e-5, cuts


def test_last_is_the_last_of_all_and_its_argmax_is_returned(qwen2: Model) -> None:
    ids = qwen2.ids[None]
    with qwen2.opened("exact") as session:
        returned = session.step(ids)
        last = session.logits().copy()
        whole = all_logits(session, ids)
    assert last.shape == (1, 1024) and whole.shape == (1, 32, 1024)
    assert relative_error(last, whole[:, -1]) < 1e-6
    assert returned.dtype == np.int32 and returned[0] == whole[0, -1].argmax()


def test_rewind_continues_as_if_the_rest_had_never_been(qwen2: Model) -> None:
    ids = qwen2.ids[None]
    with qwen2.opened("exact") as session:
        whole = all_logits(session, ids)
        assert session.rewind(10)
        session.step(ids[:, 20:30])
        assert session.rewind(10)
        session.step(ids[:, 10:], want="all")
        assert relative_error(session.logits(), whole[:, 10:]) < 1e-6
        assert not session.rewind(33)
        assert session.rewind(0)


def test_step_refuses_what_does_not_fit(qwen2: Model) -> None:
    with qwen2.opened("exact") as session:
        session.step(np.zeros((1, CAPACITY), np.int32))
        with pytest.raises(CaseError, match="do not fit"):
            session.step(np.zeros((1, 1), np.int32))
        session.rewind(0)
        with pytest.raises(CaseError, match="do not fit"):
            session.step(np.zeros((2, 1), np.int32))
        assert session.step(np.zeros((1, 1), np.int32)).shape == (1,)


def test_the_declared_gap_is_real(contrib: Model) -> None:
    """Batch > 1 and several tokens on a filled cache: when ONNX Runtime learns it, `support` must say yes."""
    ids = np.stack([contrib.ids, contrib.ids])
    with contrib.opened("exact", batch=2) as session:
        session.step(ids[:, :16])
        with pytest.raises(CaseError, match="batch_size must be 1"):
            session.step(ids[:, 16:])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dialect", DIALECTS[1:])
def test_weights_that_are_written_in_strips_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, dialect: str
) -> None:
    """Strips of large models have odd numbers of rows that fit; two rows of int4 share bytes."""
    monkeypatch.setattr(standard_weights, "STRIP_BYTES", 3 * 4 * LLAMA.hidden)
    odd = made(tmp_path, "llama-tied", scheme, dialect)
    with odd.opened("native") as session:
        for name in odd.artifact.names():
            fed = session.fed(name)
            assert fed is not None and fed.same_bits(odd.artifact.tensor(name)), name


def test_a_copied_head_is_read_back_too(tmp_path: Path) -> None:
    tied = made(tmp_path, "llama-tied", "int8", "opset21")
    stored = graph.stored_in(graph.load(Path(tied.prepared.path) / "native.onnx"))
    head = stored[HEAD].mapped(Path(tied.prepared.path) / WEIGHTS_FILE, "r+")
    head[0, 0] ^= 1
    head.flush()
    with tied.opened("native") as session:
        fed = session.fed(TABLE)
        assert fed is not None and not fed.same_bits(tied.artifact.tensor(TABLE))


def test_fixed_shapes_of_a_case_do_not_depend_on_the_cases_beside_it() -> None:
    def sizes(*prompts: tuple[int, int]) -> tuple[int, ...]:
        cases = (
            replace(PLAIN, workload=Workload(name="x", prompt_tokens=prompt, new_tokens=0, depth=depth, chunk=64))
            for depth, prompt in prompts
        )
        return _prompt_sizes(LoadGroup(cases=tuple(cases)))

    assert sizes((0, 32)) == (32,) and sizes((0, 64)) == (64,) and sizes((0, 32), (0, 64)) == (32, 64)
    assert sizes((0, 0)) == sizes((1, 0)) == (16,)
    assert sizes((0, 150)) == (22, 64) and sizes((65, 8)) == (8, 64) and sizes((0, 8)) == (8, 16)
