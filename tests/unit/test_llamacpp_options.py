"""Threads, options and builds of `llamacpp`: what reaches the library, and what is refused beforehand."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest

from backends.llamacpp import LlamaCpp, builds, parameters, threads
from backends.llamacpp.parameters import OPTIONS
from bench.errors import UsageError
from bench.plan import parse_options
from bench.types import Support
from tests.llamacpp_models import case
from tests.tiny import tiny_arch

ROOT = Path(__file__).parents[2]
DEFAULTS = {name: option.default for name, option in OPTIONS.items()}
LLAMA_BENCH = {
    "n_batch": 2048, "n_ubatch": 512, "type_k": "f16", "type_v": "f16", "cpu_mask": "0x0", "cpu_strict": False,
    "poll": 50, "n_gpu_layers": -1, "n_cpu_moe": 0, "split_mode": "layer", "load_mode": "auto", "lazy_mode": "auto",
    "main_gpu": 0, "no_kv_offload": False, "flash_attn": "auto", "tensor_split": None, "override_tensor": None,
    "no_op_offload": False, "no_host": False, "repack": True, "prio": 0,
}  # fmt: skip
"""cmd_params_defaults of tools/llama-bench/llama-bench.cpp in llama-cpp-python 0.3.36; threads are chosen otherwise."""


def cpus(folder: Path, *cores: str) -> Path:
    """A tree as Linux shows it: the n-th CPU is a hyperthread of the core of that mask."""
    for cpu, mask in enumerate(cores):
        (folder / f"cpu{cpu}" / "topology").mkdir(parents=True)
        (folder / f"cpu{cpu}" / "topology" / "thread_siblings").write_text(f"{mask}\n")
    return folder


def usable(monkeypatch: pytest.MonkeyPatch, *cpu: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(cpu))


def test_hyperthreads_share_a_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usable(monkeypatch, 0, 1, 2, 3)
    assert threads.default_threads(cpus(tmp_path, "5", "a", "5", "a"), tmp_path / "none") == 2


def test_efficiency_cores_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = tmp_path / "cpu_core"
    fast.write_text("0-3,5\n")
    tree = cpus(tmp_path / "cpu", "3", "3", "c", "c", "10", "20")
    usable(monkeypatch, *range(6))
    assert threads.default_threads(tree, fast) == 3
    usable(monkeypatch, 4)  # only slow ones may be used
    assert threads.default_threads(tree, fast) == 1


def test_only_usable_cores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = cpus(tmp_path, *(f"{1 << cpu:x}" for cpu in range(8)))
    usable(monkeypatch, 6, 7, 2)
    assert threads.default_threads(tree, tmp_path / "none") == 3


@pytest.mark.parametrize("listed", ["", "a-b", "0-", "\n"])
def test_where_nothing_can_be_read_every_usable_cpu_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    (tmp_path / "cpu_core").write_text(listed)
    usable(monkeypatch, 0, 1, 2)
    assert threads.default_threads(tmp_path / "none", tmp_path / "cpu_core") == (1 if listed == "0-" else 3)


def test_a_mask_names_cores_from_the_lowest() -> None:
    assert threads.cpu_mask("0x0") == [False]
    assert threads.cpu_mask("0x6") == [False, True, True]
    assert threads.cpu_mask("F") == [True] * 4
    assert len(threads.cpu_mask("f" * 128)) == threads.MOST_CORES


def test_defaults_are_llama_benchs() -> None:
    assert {name: DEFAULTS[name] for name in LLAMA_BENCH} == LLAMA_BENCH
    own = {"threads", "threads_batch", "check_tensors", "kv_unified", "swa_full"}
    assert {
        name for name in set(OPTIONS) - set(LLAMA_BENCH) - own if "rope" not in name and "yarn" not in name
    } == set()
    assert not [name for name in own if DEFAULTS[name]], "what llama-bench has no flag for stays as llama.cpp has it"


MODEL_FIELDS: dict[str, tuple[Any, str, Any]] = {
    "n_gpu_layers": (7, "n_gpu_layers", 7),
    "split_mode": ("row", "split_mode", 2),
    "main_gpu": (3, "main_gpu", 3),
    "load_mode": ("mlock", "load_mode", 2),
    "lazy_mode": ("on", "lazy_mode", 2),
    "no_host": (True, "no_host", True),
    "repack": (False, "use_extra_bufts", False),
    "check_tensors": (True, "check_tensors", True),
}
CONTEXT_FIELDS: dict[str, tuple[Any, str, Any]] = {
    "threads_batch": (5, "n_threads_batch", 5),
    "n_batch": (64, "n_batch", 64),
    "n_ubatch": (32, "n_ubatch", 32),
    "flash_attn": ("on", "flash_attn_type", 1),
    "type_k": ("q8_0", "type_k", 8),
    "type_v": ("bf16", "type_v", 30),
    "no_kv_offload": (True, "offload_kqv", False),
    "no_op_offload": (True, "op_offload", False),
    "kv_unified": (True, "kv_unified", True),
    "swa_full": (True, "swa_full", True),
    "rope_scaling": ("yarn", "rope_scaling_type", 2),
    "rope_freq_base": (5e5, "rope_freq_base", 5e5),
    "rope_freq_scale": (0.5, "rope_freq_scale", 0.5),
    "yarn_ext_factor": (0.25, "yarn_ext_factor", 0.25),
    "yarn_attn_factor": (2.0, "yarn_attn_factor", 2.0),
    "yarn_beta_fast": (16.0, "yarn_beta_fast", 16.0),
    "yarn_beta_slow": (4.0, "yarn_beta_slow", 4.0),
    "yarn_orig_ctx": (4096, "yarn_orig_ctx", 4096),
}
ELSEWHERE = {"threads", "tensor_split", "override_tensor", "n_cpu_moe", "poll", "cpu_mask", "cpu_strict", "prio"}
"""An argument of its own, devices' pointers, and those of the pool of threads: tested where they are used."""


@pytest.fixture(scope="module")
def api() -> Any:
    import llama_cpp.llama_cpp

    return llama_cpp.llama_cpp


def filled(api: Any, options: dict[str, Any]) -> dict[str, Any]:
    """All fields of both structs, over llama.cpp's own defaults."""
    model, context = api.llama_model_default_params(), api.llama_context_default_params()
    kept = parameters.fill_model(model, options)
    parameters.fill_context(context, options, 2)
    told = {name: getattr(struct, name) for struct in (model, context) for name, *_ in struct._fields_}
    told["tensor_split"] = [share.value if hasattr(share, "value") else share for share in kept[0]] if kept else None
    return told


def test_every_option_has_its_field() -> None:
    assert set(OPTIONS) == {*MODEL_FIELDS, *CONTEXT_FIELDS, *ELSEWHERE}


@pytest.mark.parametrize("option", [*MODEL_FIELDS, *CONTEXT_FIELDS])
def test_an_option_reaches_its_field_alone(api: Any, option: str) -> None:
    value, field, expected = {**MODEL_FIELDS, **CONTEXT_FIELDS}[option]
    before, after = filled(api, DEFAULTS), filled(api, {**DEFAULTS, option: value})
    simple = [name for name in before if isinstance(before[name], int | float)]
    assert {name for name in simple if before[name] != after[name]} == {field}
    assert after[field] == expected


def test_defaults_leave_llama_cpps_own_but_where_llama_bench_does_not(api: Any) -> None:
    model, context = api.llama_model_default_params(), api.llama_context_default_params()
    own = {name: getattr(struct, name) for struct in (model, context) for name, *_ in struct._fields_}
    ours = filled(api, DEFAULTS)
    changed = {name for name, value in own.items() if isinstance(value, int | float) and ours[name] != value}
    assert changed <= {"n_threads", "n_threads_batch", "n_batch", "n_ubatch", "swa_full", "n_gpu_layers", "lazy_mode"}
    assert (ours["n_threads"], ours["n_threads_batch"]) == (2, 2)


def test_names_of_types_are_ggmls(api: Any) -> None:
    from backends.llamacpp.library import library

    name = library().ggml_type_name
    assert {text: name(number).decode() for text, number in parameters.KV_TYPES.items()} == {
        text: text for text in parameters.KV_TYPES
    }
    assert [api.LLAMA_SPLIT_MODE_NONE, api.LLAMA_SPLIT_MODE_LAYER, api.LLAMA_SPLIT_MODE_ROW] == [0, 1, 2]
    assert parameters.ROPE_SCALING.index("yarn") == api.LLAMA_ROPE_SCALING_TYPE_YARN


def test_shares_are_as_long_as_any_build_asks_for(api: Any) -> None:
    params = api.llama_model_default_params()
    (kept,) = parameters.fill_model(params, {**DEFAULTS, "tensor_split": "3/1"})
    assert list(params.tensor_split[:4]) == [3, 1, 0, 0]
    assert len(kept) >= api.llama_max_devices()
    assert ctypes.addressof(kept) == ctypes.addressof(params.tensor_split.contents)


REFUSED = {
    "tensor_split": ["", "a", "-1/2", "0", "0/0", "nan", "inf/1", "/".join("1" * 200)],
    "override_tensor": ["", ";", "blk", "=CPU", "blk="],
    "cpu_mask": ["", "xyz", "-0x3", "f" * 600],
    "threads": [513],
    "threads_batch": [100_000],
    "n_batch": [2**33],
    "poll": [101],
    "prio": [4],
}


@pytest.mark.parametrize(("option", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_what_the_library_cannot_take_is_never_supported(option: str, value: Any) -> None:
    """Some of these end the process when they reach the library; numbers beyond 32 bits would be cut to zero."""
    answer = LlamaCpp().support(case(tiny_arch(), **{option: value}))
    assert (answer.ok, answer.reason) == (False, "NEVER")
    assert answer.detail and option in answer.detail and len(answer.detail) < 500


@pytest.mark.parametrize(
    ("option", "value"),
    [("tensor_split", "3/1"), ("override_tensor", r"blk\.0\..*=CPU;x=y"), ("cpu_mask", "0xff"), ("threads", 512)],
)
def test_what_it_can_take_is_supported(option: str, value: Any) -> None:
    assert LlamaCpp().support(case(tiny_arch(), **{option: value})) == Support(ok=True)


@pytest.mark.parametrize(
    ("scheme", "type_k", "type_v", "says"),
    [
        ("int8", "q4_0", "iq4_nl", "iq4_nl, q4_0 beside int8: its error is predicted for f32, f16, q8_0, bf16 only"),
        ("fp16", "bf16", "f16", "bf16 beside fp16: its error is predicted for f32, f16, q8_0 only"),
        ("bf16", "q8_0", "f16", "q8_0 in part: its error is predicted for keys and values alike"),
    ],
)
def test_a_cache_whose_error_nobody_predicts_is_not_wired(scheme: str, type_k: str, type_v: str, says: str) -> None:
    answer = LlamaCpp().support(case(tiny_arch(), scheme, type_k=type_k, type_v=type_v))
    assert (answer.reason, answer.detail) == ("NOT_WIRED", f"a KV cache of {says}")


@pytest.mark.parametrize(
    ("scheme", "kind"), [("int8", "q8_0"), ("fp16", "q8_0"), ("fp16", "f32"), ("int8", "bf16"), ("bf16", "bf16")]
)
def test_a_cache_whose_error_is_predicted_is_supported(scheme: str, kind: str) -> None:
    assert LlamaCpp().support(case(tiny_arch(), scheme, type_k=kind, type_v=kind)).ok


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        parse_options("llamacpp", OPTIONS, {"n_gpu_layer": "1"})
    assert all(name in str(caught.value) for name in OPTIONS)
    with pytest.raises(UsageError, match="choices: auto, off, on"):
        parse_options("llamacpp", OPTIONS, {"flash_attn": "maybe"})
    with pytest.raises(UsageError, match="give at least 1"):
        parse_options("llamacpp", OPTIONS, {"threads": "0"})
    assert parse_options("llamacpp", OPTIONS, {"repack": "false"})["repack"] is False


FLAGS = {
    "cpu": ("", ()),
    "cuda": ("GGML_CUDA", ("nvcc",)),
    "hip": ("GGML_HIP", ("hipcc",)),
    "sycl": ("GGML_SYCL", ("icx", "icpx")),
    "vulkan": ("GGML_VULKAN", ("glslc",)),
    "cann": ("GGML_CANN", ()),
    "musa": ("GGML_MUSA", ("mcc",)),
}
"""cmake's switches, from vendor/llama.cpp/ggml/CMakeLists.txt."""


@pytest.mark.parametrize("accelerator", FLAGS)
def test_every_accelerator_has_its_build(accelerator: str) -> None:
    needs = LlamaCpp().requirements(accelerator)
    switch, compilers = FLAGS[accelerator]
    assert needs.packages == (f"llama-cpp-python=={builds.PINNED}",) and needs.native
    assert [word for word in needs.build["CMAKE_ARGS"].split() if word.endswith("=ON")] == (
        [f"-D{switch}=ON"] if switch else []
    )
    assert needs.tools == ("c++", *compilers) and needs.minutes and needs.notes
    assert LlamaCpp().requirements(accelerator.upper()) == needs


def test_nothing_named_is_the_cpus_build() -> None:
    assert LlamaCpp().requirements(None) == LlamaCpp().requirements("cpu")


def test_an_unknown_accelerator_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="one of cpu, cuda, hip, sycl, vulkan, cann, musa"):
        LlamaCpp().requirements("tpu")


def test_the_pin_is_the_projects() -> None:
    assert f'llamacpp = ["{builds.PACKAGE}"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("device", "build"),
    [
        ("CUDA0", "cuda"),
        ("cuda1", "cuda"),
        ("Vulkan1", "vulkan"),
        ("ROCm0", "hip"),
        ("SYCL0", "sycl"),
        ("CANN0", "cann"),
        ("MUSA0", "musa"),
    ],
)
def test_the_remedy_for_an_absent_device_is_its_build(device: str, build: str) -> None:
    assert builds.remedy_for(device) == f"bench setup llamacpp --accelerator {build}"


@pytest.mark.parametrize("device", ["nonsense", "CPU7", ""])
def test_what_no_build_has_needs_another_name(device: str) -> None:
    assert builds.remedy_for(device).startswith("name a --device that is present")
