"""The IR on disk: `openvino_model.xml` over `openvino_model.bin`, written once and read back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import openvino as ov

from backends.openvino import graph, weights
from backends.openvino.weights import SCALES, Stored
from bench.api import Artifact, Codes, Progress
from bench.errors import CaseError
from bench.types import Arch

GRAPH_FILE, WEIGHTS_FILE = "openvino_model.xml", "openvino_model.bin"
"""The names that OpenVINO's own tools look for."""


def write(artifact: Artifact, into: Path, progress: Progress) -> None:
    """Write both files into `into` in bounded memory: the weights in one stream, then a graph that points into them.

    OpenVINO's serializer would write all weights a second time. It is given nowhere to write them, and its graph is
    told where they lie already.
    """
    bin_path, xml_path = into / WEIGHTS_FILE, into / GRAPH_FILE
    stored = weights.write(artifact, bin_path, progress)
    tensors = {name: _tensor(entry, bin_path) for name, entry in stored.items()}
    model = graph.build(artifact.arch, artifact.inv_freq(), tensors)
    offsets = {name: entry.offset for name, entry in stored.items()}
    small = {name: node.data for name, node in constants(model).items() if name not in stored}
    offsets |= weights.append(bin_path, small)
    ov.serialize(model, xml_path, os.devnull)
    _point(xml_path, offsets)


def read(core: Any, folder: Path) -> Any:
    """The model in `folder`; its constants are maps of the file."""
    return core.read_model(folder / GRAPH_FILE)


def constants(model: Any) -> dict[str, Any]:
    """The constants of `model` by name, in its order."""
    return {node.get_friendly_name(): node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"}


def codes(found: Mapping[str, Any], arch: Arch, name: str) -> Codes | None:
    """The artifact's tensor `name` as the constants `found` hold it; None for a name that no constant holds."""
    place, rows = name, slice(None)
    for kind, start, count in (("q", 0, arch.q_rows), ("k", arch.q_rows, arch.kv_rows), ("v", -arch.kv_rows, None)):
        if f".attn_{kind}." in name:
            place = name.replace(f".attn_{kind}.", ".attn_qkv.")
            rows = slice(start, None if count is None else start + count)
    if place not in found:
        return None
    scales = found.get(place + SCALES)
    kind = found[place].get_element_type().get_type_name()
    return weights.codes(kind, _numbers(found[place])[rows], None if scales is None else _numbers(scales)[rows])


def _numbers(constant: Any) -> npt.NDArray[Any]:
    """A constant's numbers; the bits of bf16, the bytes of u4."""
    kind, shape = constant.get_element_type().get_type_name(), list(constant.shape)
    numbers = np.asarray(constant.data)
    if kind == "bf16":
        return numbers.view(np.uint16).reshape(shape)
    return numbers.reshape(shape[0], -1) if kind == "u4" else numbers


def _tensor(entry: Stored, path: Path) -> ov.Tensor:
    raw = weights.bytes_of(entry, path)
    dtype = weights.NUMPY.get(entry.kind)
    if dtype is None:
        return ov.Tensor(raw, ov.Shape(entry.shape), getattr(ov.Type, entry.kind))
    return ov.Tensor(raw.view(dtype).reshape(entry.shape), shared_memory=True)


def _point(xml_path: Path, offsets: Mapping[str, int]) -> None:
    """Let every constant of the graph begin at its place in `offsets`, by name."""
    tree = ElementTree.parse(xml_path)
    for layer in tree.iter("layer"):
        if layer.get("type") == "Const":
            data, name = layer.find("data"), layer.get("name", "")
            if data is None or name not in offsets:
                raise CaseError(f"the serializer named a constant {name!r}", phase="prepare", where=xml_path.name)
            data.set("offset", str(offsets[name]))
    tree.write(xml_path, encoding="utf-8", xml_declaration=True)
