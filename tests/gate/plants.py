"""Faults of a builder, planted into the files that the onnx adapter prepared: what the gate is there to see.

Executed as a program, `python -m tests.gate.plants` prints the table of docs/method.md: measured / predicted error of
each plant at the native gate alone, and the error that the exact certificate sees.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from backends.onnx import Onnx, graph, weights
from bench import gate, parity, protocol
from bench.api import Session
from bench.artifacts import cache
from bench.artifacts.layout import inv_freq
from bench.artifacts.reader import open_artifact
from bench.artifacts.reference import ensure_reference
from bench.artifacts.stored_reference import Reference, load_reference
from bench.plan import default_options
from bench.types import Arch, Case, Fidelity, LoadGroup, Prepared, RopeScaling, Workload

LAYER = 2
"""The layer that is tampered with: in the middle, as a fault anywhere must be seen."""
SCHEME = "int8"

_QWEN2 = Arch(
    family="qwen2",
    layers=4,
    hidden=256,
    heads=8,
    kv_heads=4,
    head_dim=32,
    ffn=512,
    vocab=1024,
    context=4096,
    rope_theta=10_000.0,
    norm_eps=1e-6,
    tied=False,
)
ARCHS = {
    "bite-qwen2": _QWEN2,
    "bite-qwen3": replace(_QWEN2, family="qwen3", head_dim=64),
    "bite-llama3": replace(
        _QWEN2,
        family="llama",
        rope_theta=500_000.0,
        rope_scaling=RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=64),
    ),
    "bite-llama31": replace(
        _QWEN2,
        family="llama",
        head_dim=64,
        rope_theta=500_000.0,
        rope_scaling=RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192),
    ),
}


@dataclass(frozen=True, slots=True)
class Plant:
    """One fault: `alter` changes the prepared folder of `model`. `native`: the native gate alone sees it."""

    name: str
    alter: Callable[[Path, Arch], None]
    model: str = "bite-qwen2"
    native: bool = True

    def __str__(self) -> str:
        return self.name.replace(" ", "-")

    def into(self, folder: Path) -> None:
        """Alter the files and seal them again: a builder with this fault would have sealed them too."""
        self.alter(folder, ARCHS[self.model])
        told = protocol.decode(Prepared, (folder / "prepared.json").read_bytes())
        cache.seal(folder, [*told.files, "prepared.json"])


def rows_shuffled(kind: str) -> Callable[[Path, Arch], None]:
    def alter(folder: Path, arch: Arch) -> None:
        for part in parts(folder, arch, f"blk.{LAYER}.{kind}.weight"):
            part[...] = part[np.random.Generator(np.random.PCG64(1)).permutation(len(part))]

    return alter


def one_scale_doubled(kind: str) -> Callable[[Path, Arch], None]:
    def alter(folder: Path, arch: Arch) -> None:
        _, scales = parts(folder, arch, f"blk.{LAYER}.{kind}.weight")
        scales[5] *= 2

    return alter


def set_to(value: float, *names: str) -> Callable[[Path, Arch], None]:
    def alter(folder: Path, arch: Arch) -> None:
        for name in names:
            (numbers,) = parts(folder, arch, f"blk.{LAYER}.{name}")
            numbers[...] = value

    return alter


def layers_swapped(folder: Path, arch: Arch) -> None:
    names = [name.split(".", 2)[2] for name in weights.parts(arch) if name.startswith("blk.0.")]
    stored = graph.stored_in(graph.load(folder / "native.onnx"))
    for name in names:
        for suffix in ("", weights.SCALES):
            one, other = (stored.get(f"blk.{layer}.{name}{suffix}") for layer in (1, 2))
            if one and other:
                first, second = mapped(folder, one), mapped(folder, other)
                kept = first.copy()
                first[...] = second
                second[...] = kept


def kv_heads_rotated(folder: Path, arch: Arch) -> None:
    for kind in ("attn_k", "attn_v"):
        for suffix in ("weight", "bias") if arch.qkv_bias else ("weight",):
            for part in parts(folder, arch, f"blk.{LAYER}.{kind}.{suffix}"):
                part[...] = np.roll(part, arch.head_dim, axis=0)


def rope_of(**changes: Any) -> Callable[[Path, Arch], None]:
    """The rotary frequencies of an architecture that differs in `changes`."""

    def alter(folder: Path, arch: Arch) -> None:
        told = json.loads((folder / "prepared.json").read_text())
        told["notes"]["inv_freq"] = inv_freq(replace(arch, **changes)).tolist()
        (folder / "prepared.json").write_text(json.dumps(told))

    return alter


def qk_norm_nodes_removed(folder: Path, arch: Arch) -> None:
    def remove(node: onnx.NodeProto) -> None:
        if node.name.startswith(f"blk.{LAYER}.attn_q_norm") or node.name.startswith(f"blk.{LAYER}.attn_k_norm"):
            del node.input[1:], node.attribute[:]
            node.op_type = "Identity"

    for name in ("native", "exact"):
        edit(folder / f"{name}.onnx", remove)


def attention_scale_of_the_native_graph(folder: Path, arch: Arch) -> None:
    def rescale(node: onnx.NodeProto) -> None:
        for attribute in node.attribute:
            if node.name == f"blk.{LAYER}.attention" and attribute.name == "scale":
                attribute.f *= 1.5

    edit(folder / "native.onnx", rescale)


KINDS = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")

NATIVE_ONLY = Plant("attention scale 1.5 times, native graph only", attention_scale_of_the_native_graph)
"""The one that the certificate cannot see: it executes the other graph."""

PLANTS = (
    *(Plant(f"{kind} rows shuffled", rows_shuffled(kind)) for kind in KINDS),
    Plant("one scale doubled in ffn_down", one_scale_doubled("ffn_down")),
    Plant("one scale doubled in attn_q", one_scale_doubled("attn_q")),
    *(Plant(f"{kind} bias dropped", set_to(0.0, f"{kind}.bias")) for kind in ("attn_q", "attn_k", "attn_v")),
    Plant("two layers swapped", layers_swapped),
    Plant("kv heads rotated", kv_heads_rotated),
    Plant("rope theta 500 000 for 10 000", rope_of(rope_theta=500_000.0)),
    Plant("rope theta 20 000 for 10 000", rope_of(rope_theta=20_000.0)),
    Plant("rope scaling dropped", rope_of(rope_scaling=None), model="bite-llama3"),
    Plant("rope scaling of 8192 dropped", rope_of(rope_scaling=None), model="bite-llama31", native=False),
    Plant("qk-norm weights one", set_to(1.0, "attn_q_norm.weight", "attn_k_norm.weight"), model="bite-qwen3"),
    Plant("qk-norm nodes removed", qk_norm_nodes_removed, model="bite-qwen3"),
)


def parts(folder: Path, arch: Arch, tensor: str) -> list[npt.NDArray[Any]]:
    """Writable maps of the rows of one tensor of the artifact: its numbers, or its codes and its scales."""
    stored = graph.stored_in(graph.load(folder / "native.onnx"))
    for name, stacked in weights.parts(arch).items():
        start = 0
        for part, rows in stacked:
            if part == tensor:
                found = [stored[key] for key in (name, name + weights.SCALES) if key in stored]
                return [mapped(folder, entry)[start : start + rows] for entry in found]
            start += rows
    raise KeyError(tensor)


def mapped(folder: Path, entry: weights.Stored) -> npt.NDArray[Any]:
    path = folder / weights.WEIGHTS_FILE
    return np.memmap(path, dtype=entry.dtype, mode="r+", offset=entry.offset, shape=entry.shape)


def edit(path: Path, change: Callable[[onnx.NodeProto], None]) -> None:
    model = graph.load(path)
    for node in model.graph.node:
        change(node)
    path.write_bytes(model.SerializeToString())


def case(model: str, fidelity: Fidelity) -> Case:
    return Case(
        model=model,
        scheme=SCHEME,
        weights="synthetic",
        arch=ARCHS[model],
        backend="onnx",
        device=None,
        provider=None,
        fidelity=fidelity,
        workload=Workload(name="pp32", prompt_tokens=32, new_tokens=0),
        kv_capacity=64,
        options=default_options(Onnx()),
    )


@contextmanager
def opened(folder: Path, model: str, fidelity: Fidelity) -> Iterator[Session]:
    told = protocol.decode(Prepared, (folder / "prepared.json").read_bytes())
    group = LoadGroup(cases=(case(model, fidelity),))
    with closing(Onnx().open(group, replace(told, path=str(folder)))) as session:
        yield session


def certificate(folder: Path, model: str, reference: Reference) -> gate.Certificate:
    with opened(folder, model, "exact") as session:
        return gate.certify(session, reference, ARCHS[model].layers)


def native(folder: Path, model: str, reference: Reference) -> list[parity.Check]:
    with opened(folder, model, "native") as session:
        return gate.native(session, reference, lambda done, total: None)[1]


def prepare(model: str, place: Path) -> tuple[Path, Reference]:
    """A prepared folder without a fault in `place`, and the reference. BENCH_CACHE decides where the artifact goes."""
    artifact = cache.ensure_artifact(model, ARCHS[model], SCHEME)
    folder = place / model
    folder.mkdir(parents=True)
    prepared = Onnx().prepare(case(model, "native"), open_artifact(artifact), folder, lambda done, total: None)
    (folder / "prepared.json").write_bytes(protocol.encode(prepared))
    return folder, load_reference(ensure_reference(artifact))


def main() -> Iterator[str]:
    yield "| planted | certificate | prefill, measured / predicted | decode |"
    yield "|---|---|---|---|"
    nothing = [Plant(f"nothing ({model})", lambda folder, arch: None, model) for model in ARCHS]
    for plant in (*nothing, *PLANTS, NATIVE_ONLY):
        with tempfile.TemporaryDirectory() as place:
            folder, reference = prepare(plant.model, Path(place))
            plant.into(folder)
            found = certificate(folder, plant.model, reference)
            checks = native(folder, plant.model, reference)
            ratios = [(check.error or np.nan) / (check.predicted or np.nan) for check in checks]
            yield f"| {plant.name} | {found.worst:.1e} | {ratios[0]:.2f} | {ratios[1]:.2f} |"


if __name__ == "__main__":
    for line in main():
        sys.stdout.write(line + "\n")
