"""Where a session of `llamacpp` is said to compute: read from real graphs whose nodes seem to execute elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from backends.llamacpp import devices, facts
from backends.llamacpp.devices import Present
from backends.llamacpp.graph import Node, Seen, watched
from backends.llamacpp.library import library
from backends.llamacpp.session import LlamaCppSession
from bench.attest import misplaced
from bench.errors import PrerequisiteError
from bench.facts import SessionFacts
from tests.llamacpp_models import Models

PADDED = 256
"""Positions that llama.cpp allocates for the cache of these cases."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("llamacpp"))


GPUS = tuple(Present(at=index, name=f"CUDA{index}", kind="gpu", description=f"Chip {index}") for index in range(2))
Where = Callable[[Node], str]


def moved(where: Where) -> Any:
    """`watched` over the real graph, whose nodes seem to execute elsewhere."""

    def to(node: Node) -> Node:
        device = where(node)
        inputs = tuple(
            each if each.name == "token_embd.weight" and node.operation == "GET_ROWS"
            else replace(each, device=device, buffer=device, host=device == "CPU")
            for each in node.inputs
        )  # fmt: skip
        return replace(node, result=replace(node.result, device=device), inputs=inputs)

    class Moved:
        def __init__(self, steps: Any):
            self._steps = steps

        def step(self, tokens: Sequence[int]) -> Seen:
            seen = self._steps.step(tokens)
            return Seen(nodes=tuple(map(to, seen.nodes)), product=seen.product)

    @contextmanager
    def steps(*arguments: Any) -> Iterator[Moved]:
        with watched(*arguments) as real:
            yield Moved(real)

    return steps


@contextmanager
def on_gpus(
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    where: Where,
    *,
    tied: bool = False,
    scheme: str = "int8",
    **options: Any,
) -> Iterator[LlamaCppSession]:
    """A session that was opened on the GPUs of `asked` and computes each node at `where`."""
    here = [*GPUS, *devices.present(library())]
    with models.opened(scheme, prompt=128, arch={"tied": tied}) as session:
        model = session._model
        assert model
        model.devices = [next(each for each in here if each.name == name) for name in asked.split("+")]
        model.options = {**model.options, **options}
        monkeypatch.setattr(facts, "watched", moved(where))
        monkeypatch.setattr(devices, "present", lambda lib: here)
        yield session


def place(models: Models, monkeypatch: pytest.MonkeyPatch, asked: str, where: Where, **options: Any) -> SessionFacts:
    with on_gpus(models, monkeypatch, asked, where, **options) as session:
        return session.facts()


def layer(node: Node) -> int:
    """Of a node; the output's counts as the one after the last."""
    last = node.result.name.rpartition("-")[2].split()[0]
    return int(last) if last.isdigit() else 2


def first_on(*names: str) -> Where:
    return lambda node: names[min(layer(node), len(names) - 1)]


def test_all_layers_on_a_gpu(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of embeddings stays on the host, where rows are looked up and nothing is computed."""
    told = place(models, monkeypatch, "CUDA0", lambda node: "CPU" if node.operation == "GET_ROWS" else "CUDA0")
    assert (told.asked_placement, [each.device for each in told.placement]) == ("CUDA0", ["CUDA0"])
    assert [(each.kind, each.name, each.index) for each in told.devices] == [("gpu", "Chip 0", 0)]
    assert misplaced(told) is None and told.placement[0].matmul_share == 1.0


def test_a_gpus_attention_does_not_add_up_in_float16(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    told = place(models, monkeypatch, "CUDA0", lambda node: "CUDA0", scheme="fp16")
    assert told.precision_classes == ("a16-f16",)


def test_layers_kept_on_the_host_on_purpose_are_spelled_out(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    told = place(models, monkeypatch, "CUDA0", first_on("CPU", "CUDA0"), n_gpu_layers=2)
    assert told.asked_placement == "CUDA0+CPU" == told.placement[0].device
    assert misplaced(told) is None and len(told.placement) == 1


@pytest.mark.parametrize(
    "option", [{"no_kv_offload": True}, {"n_cpu_moe": 1}, {"override_tensor": "a=CPU"}, {"n_gpu_layers": 0}]
)
def test_every_option_that_keeps_something_on_the_host_says_so(
    models: Models, monkeypatch: pytest.MonkeyPatch, option: dict[str, Any]
) -> None:
    told = place(models, monkeypatch, "CUDA0", first_on("CPU", "CUDA0"), **option)
    assert told.asked_placement == "CUDA0+CPU" and misplaced(told) is None


def test_a_silent_fallback_is_seen(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """One product of one layer, nothing else."""

    def where(node: Node) -> str:
        return "CPU" if node.multiplies and node.weights[0].name == "blk.1.ffn_down.weight" else "CUDA0"

    told = place(models, monkeypatch, "CUDA0", where)
    reason = misplaced(told)
    assert reason and reason.startswith("asked for CUDA0, but CPU executes 1 MUL_MAT")
    assert {each.kind for each in told.devices} == {"gpu", "cpu"}


def test_an_operation_without_weights_that_falls_back_is_seen_too(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = place(models, monkeypatch, "CUDA0", lambda node: "CPU" if node.operation == "FLASH_ATTN_EXT" else "CUDA0")
    reason = misplaced(told)
    assert reason and "CPU executes 2 FLASH_ATTN_EXT: all matrix products are as asked" in reason


@pytest.mark.parametrize("asked", ["CUDA0+CUDA1", "CUDA1+CUDA0"])
def test_two_gpus_share_the_layers(models: Models, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    told = place(models, monkeypatch, asked, first_on("CUDA0", "CUDA1"))
    assert told.asked_placement == asked == told.placement[0].device
    assert misplaced(told) is None and len(told.devices) == 2


def test_of_two_gpus_one_that_idles_is_seen(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = misplaced(place(models, monkeypatch, "CUDA0+CUDA1", lambda node: "CUDA0"))
    assert reason and reason.startswith("asked for CUDA0+CUDA1, but CUDA0 executes")


def test_a_gpus_memory_is_what_it_has_lost(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    with on_gpus(
        models, monkeypatch, "CUDA0", lambda node: "CPU" if node.operation == "GET_ROWS" else "CUDA0"
    ) as session:
        model = session._model
        assert model
        model.free_before = {"CUDA0": 1000}
        monkeypatch.setattr(devices, "free_bytes", lambda lib, device: 400)
        told = {use.device: use for use in session.memory()}
    assert set(told) == {"CUDA0", "cpu"}
    assert (told["CUDA0"].device_delta_bytes, told["cpu"].device_delta_bytes) == (600, None)
    assert told["CUDA0"].kv_bytes == 2 * 2 * 64 * 2 * PADDED and told["cpu"].kv_bytes is None
    assert told["cpu"].weights_bytes == 300 * 128 // 32 * 34, "the table that rows are looked up in"


def test_a_tied_table_counts_where_it_is_multiplied_with(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    def where(node: Node) -> str:
        return "CPU" if node.operation == "GET_ROWS" else "CUDA0"

    with on_gpus(models, monkeypatch, "CUDA0", where, tied=True) as session:
        told, held = session.facts(), session._read().weight_bytes
    assert told.embedding_bytes == 0 and held == {"CUDA0": told.resident_weight_bytes}


PCI = b"0000:c1:00.0"
"""ggml-backend.h, at `device_id`: lower case, or NULL."""


class Build:
    """A library of a build that has these devices, by name and ggml's number of their kind."""

    def __init__(self, *here: tuple[str, int]):
        self._here = here

    def ggml_backend_dev_count(self) -> int:
        return len(self._here)

    def ggml_backend_dev_get(self, index: int) -> int:
        return index

    def ggml_backend_dev_name(self, at: int) -> bytes:
        return self._here[at][0].encode()

    def ggml_backend_dev_type(self, at: int) -> int:
        return self._here[at][1]

    def ggml_backend_dev_description(self, at: int) -> bytes:
        return f"the {self._here[at][0]} ".encode()

    def ggml_backend_dev_get_props(self, at: int, into: Any) -> None:
        into._obj.device_id = PCI if self._here[at][0] == "CUDA0" else None

    def registered(self) -> list[str]:
        return ["CUDA", "CPU"]


TWO_GPUS: Any = Build(("CUDA0", 1), ("CUDA1", 1), ("CPU", 0))


@pytest.mark.parametrize(
    ("named", "found"),
    [
        (None, ["CUDA0", "CUDA1"]),
        ("cuda1", ["CUDA1"]),
        ("CUDA1 + CUDA0", ["CUDA1", "CUDA0"]),
        ("CPU", ["CPU"]),
    ],
)
def test_devices_are_those_named_or_all_gpus(named: str | None, found: list[str]) -> None:
    assert [each.name for each in devices.asked_for(TWO_GPUS, named)] == found


def test_a_device_has_its_address_where_ggml_knows_it() -> None:
    assert [each.told(0).pci for each in devices.present(TWO_GPUS)] == ["0000:c1:00.0", None, None]


def test_without_a_gpu_nothing_named_is_the_cpu() -> None:
    only: Any = Build(("BLAS", 3), ("CPU", 0))
    assert [(each.name, each.kind) for each in devices.asked_for(only, None)] == [("CPU", "cpu")]


def test_an_absent_device_is_refused_with_the_build_that_has_it() -> None:
    with pytest.raises(PrerequisiteError) as caught:
        devices.asked_for(TWO_GPUS, "CUDA0+Vulkan0")
    assert (caught.value.what, caught.value.remedy) == (
        "there is no device 'Vulkan0'",
        "bench setup llamacpp --accelerator vulkan",
    )
    assert caught.value.cause == "present: CUDA0, CUDA1, CPU; this build has CUDA+CPU"


def test_the_cpus_memory_is_the_hosts() -> None:
    (cpu,) = devices.asked_for(library(), "cpu")
    assert devices.free_bytes(library(), cpu) is None
