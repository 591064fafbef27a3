"""An export appears whole or not at all; whatever goes wrong says so and leaves nothing but a log."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench import exporting, registry
from bench.api import Artifact, Exporter, Progress
from bench.artifacts import folders
from bench.artifacts.forward import forward
from bench.artifacts.reader import open_artifact
from bench.artifacts.reference import gate_ids
from bench.artifacts.sample import SHIFT, load_sample, make_sample, save_sample
from bench.artifacts.synthesize import synthesize
from bench.environments.interpreter import Interpreter
from bench.errors import CaseError, PrerequisiteError, UsageError
from bench.types import Case, Sample, Support
from tests.exported import export_case

TARGET = f"{__name__}:Exports"


class Exports:
    """What an exporter hands on; where the case says so it fails instead."""

    name = "exports"

    def export_support(self, case: Case) -> Support:
        return Support(ok=True)

    def export_bytes(self, case: Case) -> int:
        return 1 << 20

    def export(self, case: Case, artifact: Artifact, sample: Sample, into: Path, progress: Progress) -> None:
        (into / "half").write_text(f"{artifact.digest} {sample.logits.shape}")
        if case.options["dialect"] == "fails":
            raise RuntimeError("nothing fits")


class Watcher:
    """Keeps the names of phases."""

    def __init__(self) -> None:
        self.phases: list[str] = []

    def phase(self, name: str, detail: str = "") -> None:
        self.phases.append(name)

    def progress(self, done: int, total: int) -> None:
        assert 0 <= done <= total

    def tick(self) -> None:
        pass


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def export_to(into: Path, dialect: str = "opset21") -> Watcher:
    watcher = Watcher()
    backend: Any = Exports()
    exporting.export_model(export_case(dialect=dialect, batch=2), backend, TARGET, Interpreter(), into, watcher)
    return watcher


def test_a_folder_with_digests_appears(place: Path) -> None:
    watcher = export_to(place / "out")
    assert watcher.phases == ["synthesize", "reference", "export", "digest"]
    assert sorted(path.name for path in place.iterdir()) == ["out"]
    text = (place / "out" / "half").read_text()
    assert text.endswith("(2, 32, 300)")
    assert (place / "out" / "SHA256SUMS").read_text() == f"{hashlib.sha256(text.encode()).hexdigest()}  half\n"
    (place / "empty").mkdir()
    assert export_to(place / "empty").phases == ["reference", "export", "digest"]  # the artifact is cached
    assert (place / "empty" / "SHA256SUMS").is_file()


def test_a_failed_worker_leaves_its_log(place: Path) -> None:
    with pytest.raises(CaseError, match=r"out\.\d+\.log: RuntimeError: nothing fits") as caught:
        export_to(place / "out", "fails")
    assert caught.value.exit_code == 4
    (log,) = place.iterdir()
    assert str(log) in str(caught.value) and "nothing fits" in log.read_text()


@pytest.mark.parametrize("where", ["make_sample", "listen", "write_sums"])
def test_an_interrupt_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def interrupted(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_to(place / "out")
    assert not list(place.iterdir())
    assert not list((place.parent / "cache" / "scratch").glob("[!.]*"))


def test_the_disk_is_looked_at_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=1 << 20)
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(PrerequisiteError, match=r"disk full: .* needed; name another folder"):
        export_to(place / "out")  # the artifact lies on the same disk, and is not made yet
    assert not (place.parent / "cache" / "artifacts").exists()
    assert not list(place.iterdir())


def test_nothing_is_overwritten(place: Path) -> None:
    (place / "full").mkdir()
    (place / "full" / "kept").write_text("kept")
    (place / "file").write_text("kept")
    (place / "out.log").write_text("kept")
    for name, says in {
        "full": "full: is not empty; name a new folder",
        "file": "file: is no folder",
        "no/out": "no/out: lies in no folder that exists; mkdir -p ",
    }.items():
        with pytest.raises(UsageError, match=says):
            export_to(place / name)
    export_to(place / "out")
    names = ("full/kept", "file", "out.log")
    assert [(place / name).read_text() for name in names] == ["kept"] * 3


def test_backends_that_export_nothing_say_so() -> None:
    exporters = [name for name in registry.names() if isinstance(registry.load(name), Exporter)]
    assert exporters == ["ascend", "migraphx", "onnx"]
    with pytest.raises(UsageError, match="backend null exports nothing"):
        exporting.check_export(export_case(), registry.load("null"))


@pytest.mark.parametrize("length", [None, 2, 3, 8, 32, 4096])
def test_the_sample_fits_every_cache(length: int | None) -> None:
    prompt, steps = exporting.sampled(length)
    assert prompt >= 1 and steps >= 1 and prompt + steps <= min(length or 32, 32)
    assert prompt + steps == min(length or 32, 32)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_a_sample_is_the_reference_of_each_row(family: str, tmp_path: Path) -> None:
    case = export_case(family)
    synthesize(tmp_path, model="tiny", arch=case.arch, scheme="int8", processes=1)
    artifact = open_artifact(tmp_path)
    done: list[tuple[int, int]] = []
    made = make_sample(artifact, 3, 20, lambda *step: done.append(step))
    save_sample(made, tmp_path)
    sample = load_sample(tmp_path)
    assert done == sorted(done) and done[-1][0] == done[-1][1]
    for row in range(3):
        ids = np.roll(gate_ids(artifact), SHIFT * row)[:20]
        assert np.array_equal(sample.ids[row], ids)
        logits = forward(artifact, ids, ("f32", "f16"))
        assert np.allclose(sample.logits[row], logits["f32"], atol=1e-5)
        delta2 = np.square((logits["f16"] - logits["f32"]).astype(np.float64)).sum(axis=-1)
        assert sample.delta2["f16"][row].sum() == pytest.approx(delta2.sum(), rel=0.1)  # ties fall either way
    assert sample.keys.shape == sample.values.shape == (2, 3, 20, 2, 32)
    for kept, each in ((sample.keys, made.keys), (sample.values, made.values)):
        assert np.array_equal(kept, each) and np.isfinite(kept).all()
        assert len({kept[layer, row].tobytes() for layer in (0, 1) for row in range(3)}) == 6


def test_an_exported_folder_can_be_moved(place: Path) -> None:
    export_to(place / "out")
    shutil.move(place / "out", place / "moved")
    assert str(place) not in "".join(path.read_text() for path in (place / "moved").iterdir())
