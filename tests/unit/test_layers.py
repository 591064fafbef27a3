"""The shape of the house: who may import whom, what a worker loads, how long files and functions are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from bench import registry

ROOT = Path(__file__).parents[2]

LAYERS = [
    ("errors", "units"),
    ("types",),
    ("facts",),
    ("api",),
    ("spec", "plan", "needs", "registry", "toml_file"),
    (
        "protocol",
        "ceiling",
        "measure",
        "sustain",
        "parity",
        "gate",
        "attest",
        "packages",
        "artifacts",
        "collector",
        "stats",
        "results",
    ),
    ("child", "environments"),
    (
        "worker",
        "tasks",
        "launch",
        "preparing",
        "exporting",
        "recording",
        "situation",
        "metering",
        "conditions",
        "watching",
        "runner",
        "interleaving",
        "reports",
        "pairing",
        "comparing",
        "interchange",
        "conformance",
        "nightly",
    ),
    ("cli", "__main__"),
]
"""From the ground up. A module imports from its own layer and those below it."""

ADAPTERS_MAY_IMPORT = {"bench.api", "bench.facts", "bench.types", "bench.errors", "bench.units"}
RUNTIMES = ("torch", "openvino", "openvino_genai", "onnxruntime", "onnx", "llama_cpp", "transformers")
VENDORS = set(
    """
    nvidia cuda cublas cudnn tensorrt nvml geforce intel sycl xpu openvino amd rocm hip radeon ascend cann huawei
    cambricon mlu musa qualcomm apple metal hygon iluvatar metax enflame biren kunlun
    """.split()  # noqa: SIM905 (a list of quoted words is no easier to read)
)

MODULES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for folder in ("bench", "backends")
    for path in (ROOT / folder).rglob("*.py")
)
CORE = [module for module in MODULES if module.startswith("bench.")]
ADAPTERS = [module for module in MODULES if module.startswith("backends.")]


@cache
def tree(module: str) -> ast.Module:
    return ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))


def exists(name: str) -> bool:
    return name in MODULES or f"{name}.__init__" in MODULES


def imported(module: str) -> Iterator[str]:
    """Every module that `module` imports, anywhere in it, by full name."""
    package = module.split(".")[:-1]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            inner = [f"{base}.{alias.name}" for alias in node.names if exists(f"{base}.{alias.name}")]
            yield from inner or [base]


def layer(module: str) -> int:
    name = module.split(".")[1]
    found = [number for number, names in enumerate(LAYERS) if name in names]
    assert found, f"{module} is in no layer: put {name!r} into LAYERS"
    return found[0]


def test_the_reader_of_imports_sees_all_forms() -> None:
    assert {"bench.errors", "click", "bench.environments.finding"} <= set(imported("bench.cli.list_"))


@pytest.mark.parametrize("text", ["my_cuda_device", "CUDAExecutionProvider", "CudaGraph", "an Intel chip", "--rocm"])
def test_vendors_are_seen_in_any_case(text: str) -> None:
    assert vendors(text)
    assert not vendors("an internal chip, ship it")


@pytest.mark.parametrize("module", [module for module in CORE if module != "bench.__init__"])
def test_imports_point_down(module: str) -> None:
    up = [name for name in imported(module) if name.startswith("bench.") and layer(name) > layer(module)]
    assert not up
    assert not [name for name in imported(module) if name.split(".")[0] in ("backends", *RUNTIMES)]


def test_no_module_imports_itself_through_others() -> None:
    edges = {module: {name for name in imported(module) if name in CORE} for module in CORE}
    while leaves := {module for module, names in edges.items() if not names & edges.keys()}:
        edges = {module: names for module, names in edges.items() if module not in leaves}
    assert not edges


@pytest.mark.parametrize("module", ADAPTERS)
def test_adapters_know_the_contract_only(module: str) -> None:
    assert {name for name in imported(module) if name.split(".")[0] == "bench"} <= ADAPTERS_MAY_IMPORT
    own = ".".join(module.split(".")[:2])
    others = {name for name in imported(module) if name.startswith("backends.")}
    assert all(name == own or name.startswith(f"{own}.") for name in others)


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_are_short(module: str) -> None:
    lines = (ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8").count("\n")
    assert lines <= 300
    functions = [node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert not [node.name for node in functions if (node.end_lineno or 0) - node.lineno + 1 > 60]
    assert module.split(".")[-1] not in ("utils", "common", "helpers", "manager")


def vendors(text: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", text)} & VENDORS


def words(module: str) -> Iterator[tuple[int, str]]:
    """(line, text) of identifiers and strings that are no documentation."""
    found = tree(module)
    documentation = {id(node.value) for node in ast.walk(found) if isinstance(node, ast.Expr)}
    for node in ast.walk(found):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield line, node.value
        elif isinstance(node, ast.Name | ast.Attribute | ast.arg | ast.FunctionDef | ast.ClassDef | ast.alias):
            yield (
                line,
                getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", None) or node.name,
            )


@pytest.mark.parametrize("module", [module for module in CORE if not module.startswith("bench.collector.")])
def test_the_core_knows_no_vendor(module: str) -> None:
    assert not [(line, text) for line, text in words(module) if vendors(text)]


def loaded_after(code: str, allowed: str | None = None) -> set[str]:
    """Top-level modules of a fresh process after `code`; with `allowed`, everything else refuses to be imported."""
    guard = f"""
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in {(allowed or "").split()!r}:
            raise ModuleNotFoundError(f"{{name}} must not be imported", name=name)
sys.meta_path.insert(0, Guard())
"""
    report = "\nimport sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    program = (guard if allowed else "") + code + report
    done = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.append({str(ROOT)!r})\n{program}"],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


WORKER = (
    "worker",
    "tasks",
    "packages",
    "protocol",
    "measure",
    "gate",
    "attest",
    "ceiling",
    "api",
    "facts",
    "types",
    "errors",
    "units",
)


@pytest.mark.parametrize("module", [f"bench.{name}" for name in WORKER if f"bench.{name}" in MODULES])
def test_the_worker_needs_numpy_alone(module: str) -> None:
    assert "bench" in loaded_after(f"import {module}", allowed="bench numpy")


@pytest.mark.parametrize("module", sorted({path.partition(":")[0] for path in registry._own().values()}))
def test_importing_an_adapter_loads_no_runtime(module: str) -> None:
    assert "backends" in loaded_after(f"import {module}", allowed="bench backends numpy")


def test_the_guard_bites() -> None:
    with pytest.raises(AssertionError, match="click must not be imported"):
        loaded_after("import click", allowed="numpy")


@pytest.mark.parametrize("module", [m for m in CORE if re.match(r"bench\.(cli|runner|reports|registry)\b", m)])
def test_the_parent_loads_no_runtime(module: str) -> None:
    name = module.removesuffix(".__init__")
    assert not loaded_after(f"import {name}") & set(RUNTIMES)
