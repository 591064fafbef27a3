"""What a case says of an execution provider before any runtime is asked: names, options and their defaults, presets."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.onnx import Ascend, MiGraphX, Onnx
from backends.onnx.asking import kind_and_index, provider_options
from backends.onnx.known import CPU, NAMES, PROVIDERS, UNKNOWN, known
from bench import registry, runner
from bench.cli.ab import _told
from bench.environments.finding import Found
from bench.environments.interpreter import Interpreter
from bench.errors import PrerequisiteError, UsageError
from bench.nightly.plan import check, read_plan
from bench.plan import Request, default_options, make_plan
from bench.preparing import _key
from bench.spec import load_catalog
from bench.types import Availability, Case

CATALOG = load_catalog([])
OPENVINO = "OpenVINOExecutionProvider"


def case(backend: str = "onnx", provider: str | None = None, **options: str) -> Case:
    """The one case of a request; `ep_NAME` stands for `ep.NAME`."""
    given = {name.replace("ep_", "ep."): value for name, value in options.items()}
    request = Request(
        backends=(backend,), models=("smollm2-135m-int8",), workloads=("pp8",), provider=provider, options=given
    )
    plan = make_plan(request, CATALOG, {backend: registry.load(backend)})
    return plan.groups[0].first if plan.groups else plan.refused[0][0]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("openvino", OPENVINO),
        ("OpenVINO", OPENVINO),
        (OPENVINO, OPENVINO),
        ("openvinoexecutionprovider", OPENVINO),
        ("cann", "CANNExecutionProvider"),
        ("ascend", "CANNExecutionProvider"),
        ("webgpu", "WebGpuExecutionProvider"),
        ("MUSA", "MUSAExecutionProvider"),
        ("directml", "DmlExecutionProvider"),
        (None, CPU),
        ("MoonExecutionProvider", "MoonExecutionProvider"),
        ("MyPlugin", "MyPlugin"),
    ],
)
def test_a_provider_has_one_name_whatever_it_is_called(asked: str | None, name: str) -> None:
    assert case(provider=asked).provider == name


def test_no_two_providers_share_a_name() -> None:
    words = [word.lower() for found in PROVIDERS.values() for word in {found.name, found.short, *found.aliases}]
    assert len(words) == len(set(words)) and set(words) == set(NAMES)


@pytest.mark.parametrize(
    ("provider", "dialect", "shapes"),
    [
        ("cpu", "contrib", "dynamic"),
        ("cuda", "contrib", "dynamic"),
        ("openvino", "opset21", "dynamic"),
        ("cann", "opset17", "static"),
        ("migraphx", "opset17", "static"),
        ("MoonExecutionProvider", UNKNOWN.dialect, UNKNOWN.shapes),
    ],
)
def test_defaults_are_the_providers(provider: str, dialect: str, shapes: str) -> None:
    made = case(provider=provider)
    assert (made.options["dialect"], made.options["shapes"]) == (dialect, shapes)
    assert case(provider=provider, dialect="opset21").options["dialect"] == "opset21"
    assert "ep.*" not in made.options and made.options["plugin"] is None


def test_prepared_files_are_those_of_the_dialect_and_of_no_other_option() -> None:
    def key(made: Case) -> str:
        return _key("digest", Onnx(), made, {"onnxruntime": "1"})

    assert key(case(provider="cann")) == key(case(provider="migraphx")) == key(case(dialect="opset17"))
    assert key(case(provider="cann")) != key(case(provider="openvino")) != key(case())
    assert key(case(provider="openvino", ep_num_of_threads="2", plugin="/x", shapes="static")) == key(
        case(provider="openvino")
    )


def test_options_of_the_provider_are_open_ended() -> None:
    assert case(ep_num_of_threads="2", **{"ep.a.b": "c=d"}).options["ep.num_of_threads"] == "2"
    assert case(**{"ep.a.b": "c=d"}).options["ep.a.b"] == "c=d"
    assert case(**{"ep.precision_mode": ""}).options["ep.precision_mode"] == ""
    for wrong in ("ep", "ep.", "epp.x", "x.y"):
        with pytest.raises(UsageError, match="unknown option") as caught:
            case(**{wrong: "1"})
        assert "ep.* (an option of the execution provider" in str(caught.value)
    with pytest.raises(UsageError, match="nearest: dialect"):
        case(dialct="contrib")
    with pytest.raises(UsageError, match="choices: contrib, opset21, opset17"):
        case(dialect="opset99")


def test_the_path_of_a_plugin_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert case(plugin="lib/x.so").options["plugin"] == str(tmp_path / "lib/x.so")
    assert case(plugin="~/x.so").options["plugin"] == "/home/somebody/x.so"
    with pytest.raises(UsageError, match="option plugin"):
        case(plugin="")


def test_a_side_and_a_night_take_them_too(tmp_path: Path) -> None:
    side = _told("onnx provider=openvino ep.num_of_threads=2", "--a", {}, {})
    assert (side["request"]["provider"], side["request"]["options"]) == ("openvino", {"ep.num_of_threads": "2"})
    text = '[[case]]\nbackend = "onnx"\nmodel = "smollm2-135m-int8"\nprovider = "openvino"\n'
    (tmp_path / "plan.toml").write_text(text + 'set = { "ep.num_of_threads" = 2, dialect = "opset17" }\n')
    plan = read_plan(tmp_path / "plan.toml")
    check(plan.entries, CATALOG)
    assert plan.entries[0].request.options == {"ep.num_of_threads": "2", "dialect": "opset17"}
    (tmp_path / "plan.toml").write_text(text + "set = { epnum = 2 }\n")
    with pytest.raises(UsageError, match="unknown option 'epnum'"):
        check(read_plan(tmp_path / "plan.toml").entries, CATALOG)


def given(provider: str, device: str | None = None, exact: bool = False, listed: bool = False, **own: str) -> Any:
    made = replace(case(provider=provider, **{f"ep.{name}": value for name, value in own.items()}), device=device)
    made = replace(made, fidelity="exact" if exact else "native")
    return provider_options(made.provider or "", made, listed=listed, threads=3)


def test_what_a_provider_is_given() -> None:
    assert given("cpu") == given("MoonExecutionProvider", device="1") == {}
    assert given("cuda") == {} and given("cuda", exact=True) == {"use_tf32": "0"}
    assert given("cuda", device="gpu:1", gpu_mem_limit="9") == {"device_id": "1", "gpu_mem_limit": "9"}
    assert given("cuda", device="1", listed=True) == {}, "a device of its list is asked for by its entry"
    assert given("cann") == {"precision_mode": "must_keep_origin_dtype"}
    assert given("cann", precision_mode="", precision_mode_v2="origin") == {"precision_mode_v2": "origin"}
    for device, word in (("cpu", "CPU"), ("gpu:0", "GPU"), ("gpu:1", "GPU.1")):
        assert given("openvino", device=device)["device_type"] == word
    with pytest.raises(UsageError, match="names no kind"):
        given("openvino", device="1")
    with pytest.raises(UsageError, match=r"--device 1 and ep\.device_id both name one"):
        given("cuda", device="1", device_id="0")


def test_objects_are_merged_and_exactness_wins() -> None:
    mine = '{"CPU": {"NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "bf16"}, "GPU": {"A": "1"}}'
    native, exact = (given("openvino", exact=exact, load_config=mine)["load_config"] for exact in (False, True))
    assert '"INFERENCE_NUM_THREADS": "3"' in native and '"bf16"' in native
    for part in ('"NUM_STREAMS": "1"', '"GPU": {"A": "1"}', '"f32"', '"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"'):
        assert part in exact
    assert "bf16" not in exact
    assert given("openvino", load_config="{")["load_config"] == "{", "what it cannot read, the provider refuses"


@pytest.mark.parametrize(
    ("text", "told"), [(None, (None, 0)), ("1", (None, 1)), ("npu", ("npu", 0)), ("gpu:2", ("gpu", 2))]
)
def test_devices(text: str | None, told: tuple[str | None, int]) -> None:
    assert kind_and_index(text) == told


def test_what_cannot_be_is_refused_beforehand() -> None:
    answer = Onnx().support(case(provider="cpu", shapes="static"))
    assert answer.reason == "NOT_WIRED" and "--set shapes=dynamic" in str(answer.detail)
    assert Onnx().support(case(provider="cpu", shapes="static", dialect="opset21")).ok
    answer = Ascend().support(case("ascend", provider="cuda"))
    assert answer.reason == "NEVER" and "--backend onnx" in str(answer.detail)
    assert Ascend().support(case("ascend")).ok and Ascend().support(case("ascend", provider="cann")).ok


@pytest.mark.parametrize(
    ("adapter", "provider", "package"),
    [
        (Ascend(), "CANNExecutionProvider", "onnxruntime-cann"),
        (MiGraphX(), "MIGraphXExecutionProvider", "onnxruntime-migraphx"),
    ],
)
def test_presets_are_backends_of_their_own(adapter: Onnx, provider: str, package: str) -> None:
    assert registry.load(adapter.name).name == adapter.name
    made = case(adapter.name)
    assert (made.backend, made.provider, made.options) == (adapter.name, provider, default_options(adapter))
    assert (made.options["dialect"], made.options["shapes"]) == ("opset17", "static")
    needed = adapter.requirements(None)
    assert needed.packages[0] == package and not any(name.startswith("onnxruntime>") for name in needed.packages)
    assert "driver" in str(needed.notes) and "environment of its own" in str(needed.notes)
    assert needed.packages == Onnx().requirements(provider).packages


def test_requirements_name_the_package_of_a_provider() -> None:
    assert Onnx().requirements("CUDAExecutionProvider").packages[0] == "onnxruntime-gpu"
    assert Onnx().requirements("openvino").packages == ("onnxruntime>=1.24", "onnxruntime-ep-openvino", "onnx>=1.21")
    assert Onnx().requirements(None).packages == Onnx().requirements("cpu").packages
    assert Onnx().requirements("musa").packages == () and "mthreads" in str(Onnx().requirements("musa").notes)
    with pytest.raises(UsageError, match="nearest: openvino"):
        Onnx().requirements("openvin")
    for found in PROVIDERS.values():
        needed = Onnx().requirements(found.name)
        assert needed.packages or found.notes, found.name
        assert known(found.name).notes or found.name == CPU


def refusal(provider: str, **found: Any) -> PrerequisiteError:
    here = Availability(versions={"onnxruntime": "1"}, providers=(CPU, "AzureExecutionProvider"), **found)
    target = Found(target="backends.onnx:Onnx", interpreter=Interpreter(python="/p"), availability=here)
    return runner._no_provider(target, Onnx(), provider)


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        ("CUDAExecutionProvider", ("bench setup onnx --accelerator CUDA", "pip install onnxruntime-gpu", "driver")),
        ("MUSAExecutionProvider", ("registry.mthreads.com", "present: CPUExecutionProvider")),
        ("MoonExecutionProvider", ("install the build of the runtime", "present: CPUExecutionProvider")),
        ("OpenVINOExecutionProvidr", ("nearest known: OpenVINOExecutionProvider",)),
        ("openvin", ("nearest known: OpenVINOExecutionProvider",)),
        ("Cpu", ("present: CPUExecutionProvider",)),
    ],
)
def test_an_absent_provider_names_what_brings_it(provider: str, said: tuple[str, ...]) -> None:
    error = refusal(provider)
    assert f"there is no {provider} here" in str(error) and all(text in str(error) for text in said)
    assert "\n" not in str(error) and "install  " not in f"{error} "
    if error.remedy and error.remedy.startswith("`bench setup"):
        assert shlex.split(error.remedy.rpartition("or ")[2])[:4] == ["/p", "-m", "pip", "install"]


def test_an_installed_provider_that_cannot_be_used_says_why() -> None:
    error = refusal(OPENVINO, unusable={OPENVINO: "no device here"})
    assert str(error) == f"backend onnx: {OPENVINO} cannot be used here (no device here)"
