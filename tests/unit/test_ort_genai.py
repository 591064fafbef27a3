"""onnxruntime-genai executes our contrib graph and decodes our ids, so scripts/against_ort_genai compares two loops.

The graph under genai's names is also executed without genai, by ONNX Runtime alone, and gives our logits to the bit.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.artifacts.reference import gate_ids
from bench.conformance.models import Variant
from bench.conformance.subject import Subject
from bench.types import Float32, Int32

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

import ort_genai_folder  # noqa: E402 - the path must be set first
import ort_genai_subject  # noqa: E402

PROMPT, NEW = 5, 12
MODELS = [(name, "int8") for name in ("llama", "llama-tied", "llama3", "qwen2", "qwen3")] + [("qwen2", "int4")]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject("onnx", tmp_path_factory.mktemp("ort-genai"))


@pytest.fixture(scope="module", params=MODELS, ids="-".join)
def variant(request: pytest.FixtureRequest) -> Variant:
    model, scheme = request.param
    return Variant(model=model, scheme=scheme, fidelity="native")


@pytest.fixture
def folder(subject: Subject, variant: Variant) -> Path:
    """Where genai finds `variant`: in the file system of the weights, which have a second name there."""
    made = subject.prepared(variant)
    into = Path(made.path).with_name(f"genai-{variant}")
    if not into.exists():
        ort_genai_folder.over_ours(made, variant.capacity, into)
    return into


def test_the_renamed_graph_gives_our_logits(subject: Subject, variant: Variant, folder: Path) -> None:
    arch = subject.artifact(variant).arch
    ids = prompt(subject, variant)
    cache = {
        f"past_key_values.{layer}.{kind}": np.zeros((1, arch.kv_heads, variant.capacity, arch.head_dim), np.float32)
        for layer in range(arch.layers)
        for kind in ("key", "value")
    }
    session = ort.InferenceSession(str(folder / ort_genai_folder.MODEL), providers=["CPUExecutionProvider"])
    mask = np.ones((1, PROMPT), np.int64)
    (logits, *_) = session.run(None, {"input_ids": ids.astype(np.int64), "attention_mask": mask, **cache})
    assert np.array_equal(logits[0], ours(subject, variant))


def test_genai_decodes_our_ids(subject: Subject, variant: Variant, folder: Path) -> None:
    pytest.importorskip("onnxruntime_genai", reason="not installed: pip install 'onnxruntime-genai>=0.18'")
    loop = ort_genai_subject.Loop(folder=folder, threads=1, capacity=variant.capacity, steps=NEW)
    theirs = ort_genai_subject.their_ids(loop, NEW)
    with subject.opened(variant) as session:
        fed, mine = np.array([[ort_genai_subject.FIRST_ID]], np.int32), []
        for _ in range(NEW):
            fed = session.step(fed)[:, None]
            mine.append(int(fed[0, 0]))
    assert theirs == mine and len(set(mine)) > 2


def test_its_loop_ends_neither_early_nor_with_another_count(subject: Subject, variant: Variant, folder: Path) -> None:
    pytest.importorskip("onnxruntime_genai", reason="not installed: pip install 'onnxruntime-genai>=0.18'")
    loop = ort_genai_subject.Loop(folder=folder, threads=1, capacity=variant.capacity, steps=variant.capacity - 1)
    assert len(ort_genai_subject.rates(loop, 2)) == 2


def prompt(subject: Subject, variant: Variant) -> Int32:
    """Token ids [1, 5]."""
    return gate_ids(subject.artifact(variant))[None, :PROMPT]


def ours(subject: Subject, variant: Variant) -> Float32:
    """Logits [5, vocab] of our own session."""
    with subject.opened(variant) as session:
        given: Any = session
        given.step(prompt(subject, variant), want="all")
        return np.array(given.logits()[0])
