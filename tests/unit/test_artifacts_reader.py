"""Opening artifacts: what is refused, what order rows come in, what the digest sees."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.api import Artifact
from bench.artifacts.layout import arch_from_json, arch_to_json, artifact_digest, inv_freq, reading_order, tensor_specs
from bench.artifacts.reader import open_artifact
from bench.artifacts.synthesize import synthesize
from bench.errors import PrerequisiteError
from bench.types import Arch
from tests.tiny import LLAMA3_SCALING, tiny_arch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    synthesize(tmp_path, model="tiny", arch=tiny_arch("llama", rope_scaling=LLAMA3_SCALING), scheme="int8")
    return tmp_path


@given(st.integers(1, 8), st.integers(1, 16))
def test_reading_order_undoes_llama_cpp_s_permutation(heads: int, half: int) -> None:
    rows = np.arange(heads * half * 2)
    permuted = rows.reshape(heads, 2, half).swapaxes(1, 2).ravel()  # convert_hf_to_gguf's LlamaModel.permute
    assert np.array_equal(permuted[reading_order(len(rows), heads)], rows)


def test_only_q_and_k_of_llama_are_permuted() -> None:
    permuted = {spec.name: spec.permuted_heads for spec in tensor_specs(tiny_arch(layers=1), "int8")}
    assert {name: heads for name, heads in permuted.items() if heads} == {
        "blk.0.attn_q.weight": 4,
        "blk.0.attn_k.weight": 2,
    }
    assert not any(spec.permuted_heads for spec in tensor_specs(tiny_arch("qwen2"), "int8"))


def test_ranges_of_permuted_rows_are_parts_of_the_whole(folder: Path) -> None:
    tensor = open_artifact(folder).tensor("blk.1.attn_q.weight")
    assert np.array_equal(tensor.codes(37, 91), tensor.codes()[37:91])
    assert not np.array_equal(tensor.codes(), np.asarray(tensor.data["codes"]).reshape(128, 96))


def test_maps_cannot_be_written(folder: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        open_artifact(folder).tensor("output_norm.weight").data[0] = 1


def test_names_follow_the_graph(folder: Path) -> None:
    artifact: Artifact = open_artifact(folder)
    names = list(artifact.names())
    assert names[:3] == ["token_embd.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.weight"]
    assert names[-2:] == ["output_norm.weight", "output.weight"] and "rope_freqs.weight" not in names


def test_a_cut_has_the_same_codes_fewer_layers_and_its_own_digest(folder: Path) -> None:
    whole = open_artifact(folder)
    cut = whole.cut(1)
    assert cut.arch == replace(whole.arch, layers=1) and cut.digest != whole.digest
    assert not any(name.startswith("blk.1.") for name in cut.names())
    assert cut.tensor("blk.0.ffn_up.weight").same_bits(whole.tensor("blk.0.ffn_up.weight"))
    assert whole.cut(2).digest == whole.digest
    for layers in (0, 3):
        with pytest.raises(ValueError, match="cut"):
            whole.cut(layers)


def test_arch_survives_json() -> None:
    for arch in (tiny_arch(), tiny_arch("qwen3", rope_scaling=LLAMA3_SCALING)):
        assert arch_from_json(json.loads(json.dumps(arch_to_json(arch)))) == arch


def test_every_architecture_number_is_in_the_digest() -> None:
    arch = tiny_arch(rope_scaling=LLAMA3_SCALING)
    digests = {artifact_digest(arch, "int8", [])}
    for field in fields(Arch):
        value = getattr(arch, field.name)
        changed: Any = "qwen3" if field.name == "family" else None if field.name == "rope_scaling" else value + 1
        digests.add(artifact_digest(replace(arch, **{field.name: changed}), "int8", []))
    digests.add(artifact_digest(arch, "int4", []))
    scaling = replace(LLAMA3_SCALING, factor=9.0)
    digests.add(artifact_digest(replace(arch, rope_scaling=scaling), "int8", []))
    assert len(digests) == len(fields(Arch)) + 3
    assert artifact_digest(replace(arch, rope_theta=10_000), "int8", []) in digests  # 1e4 is 10000


def test_rope_scaling_keeps_fast_divides_slow_and_blends_between() -> None:
    arch = tiny_arch(rope_scaling=LLAMA3_SCALING)
    ratio = inv_freq(tiny_arch()) / inv_freq(arch)
    wavelength = 2 * np.pi / inv_freq(tiny_arch())
    assert (ratio[wavelength < 64 / 4] == 1).all() and (ratio[wavelength > 64] == 8).all()
    between = ratio[(wavelength > 64 / 4) & (wavelength < 64)]
    assert len(between) and ((between > 1) & (between < 8)).all()


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "tensors.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit


def _truncate(folder: Path) -> None:
    with (folder / "model.gguf").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "model.gguf: has .* bytes instead of"),
        (lambda folder: (folder / "model.gguf").unlink(), "model.gguf: is missing"),
        (lambda folder: (folder / "tensors.json").unlink(), "tensors.json: is missing"),
        (lambda folder: (folder / "tensors.json").write_text("{"), "tensors.json: cannot be read"),
        (lambda folder: (folder / "tensors.json").write_text("[]"), "tensors.json: cannot be read"),
        (lambda folder: (folder / "tensors.json").write_bytes(b"\xff"), "tensors.json: cannot be read"),
        (_edit(lambda c: c.update(version=99)), "format 99"),
        (_edit(lambda c: c["arch"].update(rope_theta=5e5)), "does not match its own digest"),
        (_edit(lambda c: c["arch"].update(layers=3)), "does not list the tensors"),
        (_edit(lambda c: c["arch"].update(hidden="96")), "cannot be read"),
        (_edit(lambda c: c["arch"].update(heads=-4)), "heads = -4"),
        (_edit(lambda c: c["arch"].pop("tied")), "cannot be read"),
        (_edit(lambda c: c["tensors"].pop()), "does not list the tensors"),
        (_edit(lambda c: c["tensors"][1].update(digest="0" * 64)), "does not match its own digest"),
        (_edit(lambda c: c["tensors"][0].update(offset=2**40)), "lies outside the file"),
        (_edit(lambda c: c["tensors"][0].update(offset=-8)), "lies outside the file"),
        (_edit(lambda c: c["tensors"][2].update(shape=[128, 9600])), "does not list the tensors"),
    ],
)
def test_what_is_damaged_is_refused_with_a_remedy(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(PrerequisiteError, match=message) as caught:
        open_artifact(folder)
    assert "bench prepare" in str(caught.value)


def test_workers_need_numpy_alone() -> None:
    program = (
        "import sys, bench.artifacts.reader, bench.artifacts.stored_reference\n"
        "own = {name.partition('.')[0] for name in sys.modules if not name.startswith('_')}\n"
        "print(*sorted(own - set(sys.stdlib_module_names) - {'__main__'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"bench", "numpy", "cython_runtime"}
