"""What the shared nouns compute: ids of precision classes, and an architecture's way through JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import product
from typing import get_args

import pytest

from bench.artifacts.noise import CLASSES
from bench.facts import Activations, Compute, PhaseFacts, precision_class
from bench.types import Arch
from tests.fakes import facts
from tests.tiny import LLAMA3_SCALING, tiny_arch


@pytest.mark.parametrize(
    ("activations", "compute", "kv_cache", "name"),
    [
        ("f32", "f32", "f32", "f32"),
        ("f32", "bf16", "bf16", "bf16"),
        ("f16", "f32", "f16", "a16-f16"),
        ("bf16", "f32", "u8", "a16-bf16+kv8"),
        ("f16", "f16", "f16", "f16"),
        ("f32", "f32", "u8", "f32+kv8"),
        ("a8-g32", "f32", "f32", "a8-g32"),
        ("a8-g32", "bf16", "u8", "a8-g32+bf16+kv8"),
        ("a8-token", "f16", "i8", "a8-token+f16+kv8"),
        ("a8-tensor", "f32", "i8", "a8-tensor+kv8"),
    ],
)
def test_a_class_names_what_is_rounded(activations: Activations, compute: Compute, kv_cache: str, name: str) -> None:
    assert precision_class(PhaseFacts(activations=activations, compute=compute), kv_cache) == name
    assert name in CLASSES


def test_whatever_can_be_declared_is_predicted_but_per_tensor_in_half_precision() -> None:
    missing = {
        precision_class(PhaseFacts(activations=activations, compute=compute), kv_cache)
        for activations, compute, kv_cache in product(get_args(Activations), get_args(Compute), ("f32", "u8"))
    } - set(CLASSES)
    assert {name for name in missing if not name.startswith("a8-g256")} == {
        f"a8-tensor+{half}{kv}" for half in ("f16", "bf16") for kv in ("", "+kv8")
    }
    assert len(CLASSES) == len(set(CLASSES)) == 27


def test_a_session_has_the_classes_of_all_its_phases() -> None:
    int8, half = PhaseFacts(activations="a8-token", compute="f16"), PhaseFacts(activations="f32", compute="f16")
    assert facts(int8).precision_classes == ("a8-token+f16",)
    assert facts(int8, path=half, kv_cache="u8").precision_classes == ("a8-token+f16+kv8", "f16+kv8")
    assert facts(int8, decode=half).precision_classes == ("a8-token+f16", "f16")


def test_an_architecture_survives_json() -> None:
    for arch in (tiny_arch(), tiny_arch("qwen3", rope_scaling=LLAMA3_SCALING)):
        assert Arch.from_json(json.loads(json.dumps(asdict(arch)))) == arch
    with pytest.raises(TypeError, match="colour"):
        Arch.from_json({**asdict(tiny_arch()), "colour": "red"})
