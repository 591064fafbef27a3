"""The IR against the artifact and the float32 reference: same bits, exact agrees, every precision errs as predicted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino as ov
import pytest

from backends.openvino import OpenVino, ir, weights
from backends.openvino.session import OpenVinoSession
from bench.api import Codes
from bench.artifacts.forward import forward
from bench.artifacts.noise import CLASSES
from bench.artifacts.reader import CanonicalArtifact, open_artifact
from bench.artifacts.reference import gate_ids
from bench.artifacts.synthesize import synthesize
from bench.errors import CaseError
from bench.facts import precision_class
from bench.types import Case, Float32, Int32, LoadGroup, Prepared, Workload
from tests import fakes
from tests.tiny import LLAMA3_SCALING, tiny_arch

CAPACITY = 48
LLAMA = tiny_arch("llama", layers=3, hidden=256, heads=8, ffn=352, vocab=1024)
ARCHS = {
    "llama": LLAMA,
    "llama3-tied": replace(LLAMA, rope_theta=500_000.0, rope_scaling=LLAMA3_SCALING, tied=True),
    "qwen2": replace(LLAMA, family="qwen2", norm_eps=1e-6),
    "qwen3-tied": replace(LLAMA, family="qwen3", head_dim=64, tied=True),
}
MODELS = [(name, "int8") for name in ARCHS] + [
    ("llama", "int4"),
    ("qwen3-tied", "int4"),
    ("qwen2", "fp16"),
    ("llama", "bf16"),
]
OPTIONS = {name: option.default for name, option in OpenVino.options.items()}
ACCEPTED = (0.7, 1.4)
"""Wider than the gate's, which is for models whose error is an average over more than these."""
F32 = {"inference_precision": "f32"}
PLAIN = {**F32, "dynamic_quantization_group_size": "0"}


@dataclass
class Model:
    artifact: CanonicalArtifact
    prepared: Prepared
    ids: Int32
    expected: dict[str, Float32]

    @contextmanager
    def opened(self, **changes: Any) -> Iterator[OpenVinoSession]:
        with closing(OpenVino().open(LoadGroup(cases=(case(self.artifact, **changes),)), self.prepared)) as session:
            yield session

    def error(self, logits: Float32, positions: slice = slice(None)) -> float:
        return relative_error(logits, self.expected["f32"][positions])

    def predicted(self, name: str) -> float:
        return relative_error(self.expected[name], self.expected["f32"])


def case(artifact: CanonicalArtifact, **changes: Any) -> Case:
    workload = Workload(name="pp32", prompt_tokens=32, new_tokens=0)
    options = {**OPTIONS, **changes.pop("options", {})}
    given = {"scheme": artifact.scheme, "arch": artifact.arch, "kv_capacity": CAPACITY, "options": options, **changes}
    return fakes.case(workload, backend="openvino", **given)


def prepare(artifact: CanonicalArtifact, into: Path) -> Prepared:
    into.mkdir()
    return OpenVino().prepare(case(artifact), artifact, into, lambda done, total: None)


def made(folder: Path, name: str, scheme: str) -> Model:
    (folder / "canonical").mkdir()
    synthesize(folder / "canonical", model=name, arch=ARCHS[name], scheme=scheme, processes=1)
    artifact = open_artifact(folder / "canonical")
    ids = gate_ids(artifact)
    return Model(artifact, prepare(artifact, folder / "prepared"), ids, forward(artifact, ids, CLASSES))


@pytest.fixture(scope="module", params=MODELS, ids="-".join)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return made(tmp_path_factory.mktemp("openvino"), *request.param)


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return made(tmp_path_factory.mktemp("openvino"), "qwen2", "int8")


def relative_error(logits: Float32, expected: Float32) -> float:
    centred = expected - expected.mean(axis=-1, keepdims=True)
    return float(np.linalg.norm(logits - expected) / np.linalg.norm(centred))


def logits_of(session: OpenVinoSession, ids: Int32, *cuts: int) -> Float32:
    """All logits after steps that begin at 0 and at `cuts`."""
    session.rewind(0)
    parts = []
    for part in np.split(ids[None], cuts, axis=1):
        session.step(part, want="all")
        parts.append(session.logits().copy())
    whole: Float32 = np.concatenate(parts, axis=1)[0]
    return whole


def test_the_ir_holds_the_artifact_bit_by_bit(model: Model) -> None:
    with model.opened() as session:
        for name in model.artifact.names():
            fed = session.fed(name)
            assert fed is not None and fed.same_bits(model.artifact.tensor(name)), name
        assert session.fed("blk.0.no_such.weight") is None


def test_a_changed_bit_is_seen(model: Model, tmp_path: Path) -> None:
    again = prepare(model.artifact, tmp_path / "again")
    path = Path(again.path) / ir.WEIGHTS_FILE
    with path.open("r+b") as file:
        byte = file.read(1)[0]
        file.seek(0)
        file.write(bytes([byte ^ 1]))
    first = model.artifact.names()[0]
    fed = ir.codes(ir.constants(ir.read(ov.Core(), Path(again.path))), model.artifact.arch, first)
    assert fed is not None and not fed.same_bits(model.artifact.tensor(first))


def test_exact_agrees_with_the_reference(model: Model) -> None:
    with model.opened(fidelity="exact") as session:
        assert model.error(logits_of(session, model.ids, 1)) < 1e-5


def test_defaults_err_as_their_declared_class_predicts(model: Model) -> None:
    with model.opened() as session:
        error, told = model.error(logits_of(session, model.ids, 1)), session.facts()
    ratio = error / model.predicted(precision_class(told.prefill, told.kv_cache))
    print(f"{told.precision_classes}: native / predicted = {ratio:.3f} ({error:.2e})")
    assert ACCEPTED[0] <= ratio <= ACCEPTED[1]


@pytest.mark.parametrize(
    ("options", "declared"), [(F32, "a8-g32+kv8"), (PLAIN, "f32+kv8"), ({**F32, "kv_cache_precision": "f32"}, "a8-g32")]
)
def test_each_option_errs_as_it_is_declared(qwen2: Model, options: dict[str, str], declared: str) -> None:
    with qwen2.opened(options=options) as session:
        error, told = qwen2.error(logits_of(session, qwen2.ids, 1)), session.facts()
    if told.prefill.activations == "f32" and declared.startswith("a8"):
        pytest.skip("this processor's kernels do not round the inputs of products to int8")
    assert told.precision_classes == (declared,)
    assert ACCEPTED[0] <= error / qwen2.predicted(declared) <= ACCEPTED[1]


def test_the_step_that_fills_an_empty_cache_attends_to_unrounded_keys(qwen2: Model) -> None:
    with qwen2.opened(options=PLAIN) as session:
        assert session.facts().kv_cache == "u8"
        assert qwen2.error(logits_of(session, qwen2.ids)) < 1e-5
        assert qwen2.error(logits_of(session, qwen2.ids, 1)) > 1e-3


@pytest.mark.parametrize("options", [{**PLAIN, "kv_cache_precision": "f32"}, PLAIN], ids=["f32", "u8"])
def test_rewind_continues_as_if_the_rest_had_never_been(qwen2: Model, options: dict[str, str]) -> None:
    """With 8 bits the cut state is rounded a second time: nearly the same codes, far below the error of the first."""
    with qwen2.opened(options=options) as session:
        straight = logits_of(session, qwen2.ids, 10)
        session.rewind(0)
        session.step(qwen2.ids[None, :10])
        session.step(qwen2.ids[None, 20:32])
        assert session.rewind(10)
        session.step(qwen2.ids[None, 10:], want="all")
        difference = relative_error(session.logits()[0], straight[10:])
        assert difference < (qwen2.predicted("f32+kv8") / 10 if options is PLAIN else 1e-6)
        assert not session.rewind(33) and session.rewind(32) and session.rewind(0)


def test_the_ir_is_openvinos_own(model: Model) -> None:
    """Read, compiled and executed by a bare Core that knows nothing of this project."""
    core = ov.Core()
    read = core.read_model(Path(model.prepared.path) / ir.GRAPH_FILE)
    assert {port.any_name for port in read.inputs} == {
        "input_ids", "attention_mask", "position_ids", "beam_idx", "head_positions",
    }  # fmt: skip
    assert [port.any_name for port in read.outputs] == ["logits"] and len(read.get_variables()) == 2 * LLAMA.layers
    request = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    count = len(model.ids)
    request.infer(
        {
            "input_ids": model.ids[None].astype(np.int64),
            "attention_mask": np.ones((1, count), np.int64),
            "position_ids": np.arange(count)[None],
            "beam_idx": np.zeros(1, np.int32),
            "head_positions": np.array([count - 1]),
        }
    )
    assert request.get_output_tensor(0).data[0, 0].argmax() == model.expected["f32"][-1].argmax()


def test_files_are_the_same_every_time(model: Model, tmp_path: Path) -> None:
    again = prepare(model.artifact, tmp_path / "again")
    assert sorted(path.name for path in Path(again.path).iterdir()) == sorted(again.files)
    for name in again.files:
        assert (Path(again.path) / name).read_bytes() == (Path(model.prepared.path) / name).read_bytes(), name


def test_an_int8_row_of_several_scales_is_another_scheme(tmp_path: Path) -> None:
    scales = np.full((4, 2), 0.5, np.float16)
    scales[2, 1] = 0.25
    tensor = Codes.dense("int8", np.ones((4, 64), np.int8), scales)
    artifact: Any = SimpleNamespace(names=lambda: ["blk.0.ffn_up.weight"], tensor=lambda name: tensor)
    with pytest.raises(CaseError, match="more than one scale") as caught:
        weights.write(artifact, tmp_path / "weights.bin", lambda done, total: None)
    assert (caught.value.phase, caught.value.where) == ("prepare", "blk.0.ffn_up.weight")


def test_writing_takes_a_part_of_the_models_size(tmp_path: Path) -> None:
    """Anonymous memory, sampled while 150 MB are written: what is held whole would show as 150 MB."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell a process its anonymous memory")
    arch = tiny_arch(layers=12, hidden=1024, heads=8, kv_heads=8, head_dim=128, ffn=2816, vocab=512)
    (tmp_path / "canonical").mkdir()
    synthesize(tmp_path / "canonical", model="middle", arch=arch, scheme="int8", processes=1)
    artifact = open_artifact(tmp_path / "canonical")
    with watched() as seen:
        prepared = prepare(artifact, tmp_path / "prepared")
    size = (Path(prepared.path) / ir.WEIGHTS_FILE).stat().st_size
    print(f"{(max(seen) - seen[0]) / 1e6:.0f} MB anonymous for {size / 1e6:.0f} MB, {len(seen)} samples")
    assert size > 140e6 and len(seen) > 10 and max(seen) - seen[0] < size / 3


@contextmanager
def watched() -> Iterator[list[int]]:
    """This process's anonymous bytes, every few milliseconds."""
    seen, done = [anonymous_bytes()], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            seen.append(anonymous_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024
