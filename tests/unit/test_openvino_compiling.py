"""What is asked of each device, and what is made of its answers; devices are scripted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import openvino as ov
import openvino.opset13 as ops
import pytest

from backends.openvino import OpenVino
from backends.openvino.compiling import CACHE_FOLDER, Compiled, settings
from bench.errors import PrerequisiteError
from bench.types import Case, Workload
from tests import fakes
from tests.scripted_core import HELD, PER_TOKEN, Gpu, ScriptedCore

OPTIONS = {name: option.default for name, option in OpenVino.options.items()}
CASE = fakes.case(Workload(name="pp100", prompt_tokens=100, new_tokens=0), backend="openvino", options=OPTIONS)
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}
CACHE = {"CACHE_DIR": f"/ir/{CACHE_FOLDER}", "CACHE_MODE": "OPTIMIZE_SIZE"}
IR = Path("/ir")


def case(device: str | None = None, fidelity: Any = "native", **options: Any) -> Case:
    return replace(CASE, device=device, fidelity=fidelity, options={**OPTIONS, **options})


def model() -> ov.Model:
    source = ops.parameter([1], ov.Type.f32)
    return ov.Model([ops.relu(source)], [source], "decoder")


def compiled(core: ScriptedCore, asked: Case) -> Compiled:
    return Compiled(core, model(), asked, IR)


def asked_of(name: str, asked: Case) -> dict[str, Any]:
    return settings(ScriptedCore("CPU", "GPU"), name, asked, IR)


def test_native_asks_for_nothing() -> None:
    """Every default is the device's own; only where kernels are compiled for long are they kept, beside the IR."""
    assert asked_of("CPU", case()) == {}
    assert asked_of("GPU", case()) == CACHE


def test_exact_asks_for_float32_everywhere_whatever_the_options_say() -> None:
    assert asked_of("CPU", case(fidelity="exact")) == EXACT
    assert asked_of("GPU", case(fidelity="exact")) == EXACT | CACHE
    given = case(fidelity="exact", inference_precision="bf16", kv_cache_precision="u8", threads=3)
    assert asked_of("CPU", given) == EXACT | {"INFERENCE_NUM_THREADS": 3}


def test_options_set_the_properties_of_their_names() -> None:
    given = case(threads=2, pinning=False, inference_precision="f32", dynamic_quantization_group_size="32")
    assert asked_of("CPU", given) == {
        "INFERENCE_NUM_THREADS": 2,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32",
    }


@pytest.mark.parametrize("device", ["GPU", "HETERO:GPU,CPU"])
def test_an_option_that_a_device_does_not_know_is_refused(device: str) -> None:
    core = ScriptedCore("CPU", "GPU")
    with pytest.raises(PrerequisiteError, match=r"--set threads: device GPU has no INFERENCE_NUM_THREADS") as caught:
        compiled(core, case(device, threads=2))
    assert "leave the option out" in str(caught.value.remedy) and not core.compiled


def test_one_device_gets_its_properties_as_they_are() -> None:
    core = ScriptedCore("CPU", "GPU.0", "GPU.1", gpu=type("Second", (Gpu,), {"executes": ("GPU.1",)}))
    made = compiled(core, case("gpu:1", inference_precision="f32"))
    assert core.compiled == [("decoder", "GPU.1", {"INFERENCE_PRECISION_HINT": "f32"} | CACHE)]
    assert (made.asked, made.executed) == ("GPU.1", ["GPU.1"])


def test_several_devices_get_theirs_by_name_and_are_asked_by_name() -> None:
    core = ScriptedCore("CPU", "GPU", gpu=type("Both", (Gpu,), {"executes": ("CPU", "GPU.0")}))
    made = compiled(core, case("HETERO:GPU+CPU", inference_precision="f32"))
    f32 = {"INFERENCE_PRECISION_HINT": "f32"}
    assert core.compiled == [("decoder", "HETERO:GPU,CPU", {"DEVICE_PROPERTIES": {"GPU": f32 | CACHE, "CPU": f32}})]
    assert (made.asked, made.executed) == ("HETERO:GPU,CPU", ["GPU", "CPU"])
    assert made.kind("INFERENCE_PRECISION_HINT") == "f32"
    assert made.property("INFERENCE_NUM_THREADS") is None  # of the CPU, which is not the first
    assert made.kind("KV_CACHE_PRECISION") is None  # HETERO passes on what plugins list, and the GPU's does not list it


def test_a_single_gpu_executes_under_the_name_that_it_is_listed_by() -> None:
    made = compiled(ScriptedCore("CPU", "GPU"), case("GPU.0"))
    assert (made.asked, made.executed) == ("GPU", ["GPU"])


def test_another_device_than_asked_is_told() -> None:
    elsewhere = type("Elsewhere", (Gpu,), {"executes": ("CPU",)})
    made = compiled(ScriptedCore("CPU", "GPU", gpu=elsewhere), case("GPU"))
    assert (made.asked, made.executed) == ("GPU", ["CPU"])


def test_properties_are_read_whether_they_are_listed_or_not() -> None:
    made = compiled(ScriptedCore("CPU", "GPU"), case("GPU"))
    assert "KV_CACHE_PRECISION" not in made.property("SUPPORTED_PROPERTIES")
    assert made.kind("KV_CACHE_PRECISION") == "f16" and made.property("LOADED_FROM_CACHE") is False
    assert made.kind("INFERENCE_PRECISION_HINT") == "f16"
    assert made.kind("DYNAMIC_QUANTIZATION_GROUP_SIZE") == str(PER_TOKEN)
    assert made.property("INFERENCE_NUM_THREADS") is None and made.kind("NO_SUCH") is None


def test_a_precision_that_is_taken_and_not_kept_is_refused() -> None:
    """A CPU without bf16, or with it where f16 is asked for, takes the hint and computes in another type."""
    core = ScriptedCore("CPU", "GPU", gpu=type("Wide", (Gpu,), {"not_kept": {"INFERENCE_PRECISION_HINT": "f32"}}))
    with pytest.raises(PrerequisiteError, match="asked for INFERENCE_PRECISION_HINT f16 and does f32") as caught:
        compiled(core, case("GPU", inference_precision="f16"))
    assert caught.value.remedy == "ask for f32, or leave the option out"


def test_a_part_of_the_model_is_compiled_with_the_effective_precision() -> None:
    """By itself the plugin would choose another one for a single product; compiled kernels of it are not kept."""
    core = ScriptedCore("CPU", "GPU")
    compiled(core, case("GPU", pinning=True)).alone(model())
    effective = {"INFERENCE_PRECISION_HINT": "f16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(PER_TOKEN)}
    assert core.compiled[1] == ("decoder", "GPU", effective | {"ENABLE_CPU_PINNING": True})


def test_growth_of_a_gpus_memory_counts_what_lies_in_it() -> None:
    made = compiled(ScriptedCore("CPU", "GPU"), case("GPU"))
    assert made.grown_bytes() == HELD["cl_mem"] + HELD["usm_device"]


@pytest.mark.parametrize(("device", "held"), [("CPU", HELD), ("GPU", {}), ("GPU", {"usm_host": 5})])
def test_growth_that_cannot_be_known_is_none(device: str, held: dict[str, int]) -> None:
    gpu = type("Other", (Gpu,), {"held": held, "executes": (device,)})
    assert compiled(ScriptedCore("CPU", "GPU", gpu=gpu), case(device)).grown_bytes() is None
