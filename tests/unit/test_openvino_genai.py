"""GenAI reads the artifact's own GGUF and, in exact settings, decodes the ids that our IR decodes.

Two readers of one file, written apart from each other: what both misread alike, the float32 reference would show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.artifacts.reader import open_artifact
from bench.artifacts.reference import gate_ids
from bench.artifacts.synthesize import synthesize
from bench.conformance.models import ARCHS, Variant
from bench.conformance.subject import Subject
from bench.types import Int32

genai = pytest.importorskip(
    "openvino_genai", reason="OpenVINO GenAI is not installed: pip install 'openvino-genai>=2026.4'"
)
ov = pytest.importorskip("openvino")

PROMPT, NEW = 12, 24
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0, "KV_CACHE_PRECISION": "f32"}
# Without llama3: GenAI's reader ignores rope scaling (last test). bf16 tensors it refuses.
MODELS = [(name, "int8") for name in ("llama", "llama-tied", "qwen2", "qwen2-tied", "qwen3", "qwen3-tied")]
MODELS += [("llama", "int4"), ("qwen2-tied", "int4"), ("llama", "fp16")]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject("openvino", tmp_path_factory.mktemp("genai"))


@pytest.fixture(scope="module", params=MODELS, ids="-".join)
def variant(request: pytest.FixtureRequest) -> Variant:
    model, scheme = request.param
    return Variant(model=model, scheme=scheme, fidelity="exact")


@pytest.mark.parametrize("attention", ["SDPA", "PA"])
def test_both_decode_the_same_ids(subject: Subject, variant: Variant, attention: str) -> None:
    artifact = subject.artifact(variant)
    before = files(artifact.gguf.parent)
    theirs = decoded_by_genai(artifact.gguf, prompt(subject, variant), attention)
    assert theirs == decoded_by_us(subject, variant)
    assert files(artifact.gguf.parent) == before


def test_other_weights_are_noticed(subject: Subject, tmp_path: Path) -> None:
    variant = Variant(model="llama")
    synthesize(tmp_path, model="llama", arch=ARCHS["llama"], scheme="int8", seed=1, processes=1)
    theirs = decoded_by_genai(open_artifact(tmp_path).gguf, prompt(subject, variant), "SDPA")
    assert theirs != decoded_by_us(subject, variant)


def test_rope_scaling_is_what_the_reader_ignores(subject: Subject) -> None:
    """When GenAI's reader learns it, this fails: then llama3 belongs to MODELS."""
    variant = Variant(model="llama3")
    theirs = decoded_by_genai(subject.artifact(variant).gguf, prompt(subject, variant), "SDPA")
    assert theirs != decoded_by_us(subject, variant)


def prompt(subject: Subject, variant: Variant) -> Int32:
    """Token ids [1, 12]."""
    return gate_ids(subject.artifact(variant))[None, :PROMPT]


def decoded_by_us(subject: Subject, variant: Variant) -> list[int]:
    with subject.opened(variant) as session:
        ids = [session.step(prompt(subject, variant))]
        while len(ids) < NEW:
            ids.append(session.step(ids[-1][:, None]))
    return np.concatenate(ids).tolist()


def decoded_by_genai(gguf: Path, ids: Int32, attention: str) -> list[int]:
    given: dict[str, Any] = {"ATTENTION_BACKEND": attention, **EXACT}
    if attention == "PA":
        given["scheduler_config"] = genai.SchedulerConfig()  # with it, GenAI fails where it would fall back to SDPA
    pipeline = genai.LLMPipeline(str(gguf), "CPU", **given)
    config = genai.GenerationConfig(max_new_tokens=NEW, ignore_eos=True, do_sample=False)
    return list(pipeline.generate(ov.Tensor(ids.astype(np.int64)), config).tokens[0])


def files(folder: Path) -> dict[str, int]:
    """Everything in `folder`, with the time of its last change."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}
