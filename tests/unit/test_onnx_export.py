"""What `bench export onnx` writes: complete, clean, in pieces, and a checker that tells right from wrong."""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from backends.onnx import Onnx
from backends.onnx.exported import vendors
from backends.onnx.weights import PAGE_BYTES
from bench.artifacts.layout import tensor_specs
from bench.errors import CaseError
from bench.types import Case
from tests.exported import check, export, export_case, seal

LIMIT = 64_000
VARIANTS = [
    export_case("llama", "int8", "opset21", batch=2),
    export_case("llama", "int4", "opset17", tied=True),
    export_case("llama", "fp16", "opset21", length=None),
    export_case("llama", "int8", "opset17", length=None, batch=2),
    export_case("qwen2", "int8", "opset17", batch=2),
    export_case("qwen2", "int4", "opset21", length=None, tied=True),
    export_case("qwen3", "int8", "opset21", length=8, chunk=8),
    export_case("qwen3", "fp16", "opset17", chunk=48),
]


def label(case: Case) -> str:
    return f"{case.arch.family}-{case.scheme}-{case.options['dialect']}-{case.options['shapes']}"


@pytest.fixture(scope="module", params=VARIANTS, ids=label)
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Path]:
    return request.param, export(request.param, tmp_path_factory.mktemp("export"), LIMIT)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(export_case(), tmp_path_factory.mktemp("export"))


@pytest.fixture
def whole(kept: Path, tmp_path: Path) -> Path:
    """A folder to be broken."""
    return Path(shutil.copytree(kept, tmp_path / "whole"))


def graphs(into: Path) -> dict[str, onnx.ModelProto]:
    return {path.name: onnx.load(path, load_external_data=False) for path in into.glob("*.onnx")}


def test_the_folder_checks_itself(variant: tuple[Case, Path]) -> None:
    case, into = variant
    code, said = check(into)
    print(said)
    assert code == 0, said
    assert said.splitlines()[0].startswith("files: ") and said.splitlines()[-1] == "passed"
    exact = case.options["dialect"] == "opset21"
    assert ("float32" if exact else "like f32+kv16") in said


def test_the_folder_is_complete(variant: tuple[Case, Path]) -> None:
    case, into = variant
    static = case.options["shapes"] == "static"
    assert set(graphs(into)) == ({"prefill.onnx", "decode.onnx"} if static else {"model.onnx"})
    listed = {line.split("  ")[1] for line in (into / "SHA256SUMS").read_text().splitlines()}
    files = {path.relative_to(into).as_posix() for path in into.rglob("*") if path.is_file()}
    assert listed == files - {"SHA256SUMS"}
    assert {"README.md", "check.py", "check.json", "shapes.json"} < listed
    told = json.loads((into / "check.json").read_text())
    for step in told["steps"]:
        assert (into / "expected" / f"{step['name']}.npy").is_file() and (into / "inputs" / step["name"]).is_dir()
    assert {path.parent.name for path in into.rglob("past.*.npy")} == {"decode-1"}


def test_graphs_are_clean_and_standard(variant: tuple[Case, Path]) -> None:
    case, into = variant
    opset = int(case.options["dialect"].removeprefix("opset"))
    for name, model in graphs(into).items():
        onnx.checker.check_model(str(into / name), full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
        newest = max(onnx.defs.get_schema(node.op_type, opset).since_version for node in model.graph.node)
        assert newest <= (16 if opset == 17 else 21)  # the README says 16
        if opset == 17:
            assert not {"DequantizeLinear"} & {node.op_type for node in model.graph.node}


def test_static_graphs_have_no_open_dimension(variant: tuple[Case, Path]) -> None:
    case, into = variant
    told = json.loads((into / "shapes.json").read_text())
    for name, model in graphs(into).items():
        values = {"inputs": model.graph.input, "outputs": model.graph.output}
        for kind, found in values.items():
            assert [entry["name"] for entry in told[name][kind]] == [value.name for value in found]
        sizes = [size for entry in (*told[name]["inputs"], *told[name]["outputs"]) for size in entry["shape"]]
        names = {size for size in sizes if isinstance(size, str)}
        if case.options["shapes"] == "dynamic":
            assert names == {"batch", "n", "k", "capacity"}
            continue
        assert not names
        inner = {value.name for value in model.graph.value_info}
        outputs = {value.name for value in model.graph.output}
        assert {output for node in model.graph.node for output in node.output} <= inner | outputs


def test_pieces_are_small_and_shared(variant: tuple[Case, Path]) -> None:
    _, into = variant
    pieces = {path.name: path.stat().st_size for path in into.glob("weights*.bin")}
    assert len(pieces) > 2 and max(pieces.values()) <= LIMIT
    places = []
    for model in graphs(into).values():
        external = [{entry.key: entry.value for entry in t.external_data} for t in model.graph.initializer]
        places.append([(e["location"], int(e["offset"]), int(e["length"])) for e in external if e])
    assert all(each == places[0] for each in places)
    assert {name for name, _, _ in places[0]} == set(pieces)
    for name, offset, length in places[0]:
        assert offset % PAGE_BYTES == 0 and offset + length <= pieces[name]
    held = sum(length for _, _, length in places[0])
    assert sum(pieces.values()) - held < PAGE_BYTES * len(places[0])  # nothing else is carried along


def test_a_tensor_larger_than_a_piece_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"a piece 20.0 kB at most .*cannot be cut"):
        export(export_case(), tmp_path, 20_000)
    assert not list((tmp_path / "exported").iterdir())  # before anything is written


def test_the_estimate_of_the_disk_covers_what_is_written(variant: tuple[Case, Path]) -> None:
    case, into = variant
    written = sum(path.stat().st_size for path in into.rglob("*") if path.is_file())
    assert written < Onnx().export_bytes(case) < 2.5 * written + (40 << 20)


def test_the_estimate_is_near_for_a_large_model() -> None:
    case = export_case(layers=24, hidden=2048, heads=16, kv_heads=4, head_dim=128, ffn=8192, vocab=50_000)
    numbers = sum(int(np.prod(spec.shape)) for spec in tensor_specs(case.arch, "int8"))
    assert 1.0 < (Onnx().export_bytes(case) / 2) / numbers < 1.1  # one piece: the weights twice


def test_the_checker_needs_onnxruntime_and_numpy_alone(kept: Path) -> None:
    tree = ast.parse((kept / "check.py").read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    assert names - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


def zero_a_piece(into: Path) -> None:
    path = into / "weights-1.bin"
    path.write_bytes(path.read_bytes()[: PAGE_BYTES * 2] + bytes(path.stat().st_size - PAGE_BYTES * 2))


def change_expected(into: Path) -> None:
    path = into / "expected" / "decode-3.npy"
    logits = np.load(path)
    np.save(path, logits * np.float32(1.01))


def cut_a_piece(into: Path) -> None:
    path = into / "weights-1.bin"
    path.write_bytes(path.read_bytes()[:-1])


def remove_a_file(into: Path) -> None:
    (into / "inputs" / "decode-1" / "mask.npy").unlink()


@pytest.mark.parametrize("fault", [zero_a_piece, change_expected, cut_a_piece, remove_a_file])
def test_altered_files_are_seen(whole: Path, fault: Callable[[Path], None]) -> None:
    fault(whole)
    code, said = check(whole)
    assert code == 1 and said.startswith("FAIL: ")


@pytest.mark.parametrize(
    ("fault", "phases"), [(zero_a_piece, {"prefill": "FAIL", "decode": "FAIL"}), (change_expected, {"decode": "FAIL"})]
)
def test_wrong_numbers_fail_where_files_are_whole(
    whole: Path, fault: Callable[[Path], None], phases: dict[str, str]
) -> None:
    fault(whole)
    seal(whole)
    code, said = check(whole)
    verdicts = dict(re.findall(r"^(prefill|decode): (ok|FAIL)", said, re.M))
    assert code == 1 and said.endswith("FAILED\n")
    assert verdicts == {"prefill": "ok", **phases}


def run_sample(into: Path, accuracy_level: str) -> dict[str, np.ndarray]:
    """Logits by step, as another runtime would make them."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", accuracy_level)
    told, found = json.loads((into / "check.json").read_text()), {}
    caches = {name: np.zeros(shape, told["cache_dtype"]) for name, shape in told["caches"].items()}
    for step in told["steps"]:
        session = onnxruntime.InferenceSession(str(into / step["graph"]), options, providers=["CPUExecutionProvider"])
        given = {path.stem: np.load(path) for path in (into / "inputs" / step["name"]).glob("*.npy")}
        values = session.run(None, {**given, **caches})
        outputs = dict(zip([each.name for each in session.get_outputs()], values, strict=True))
        caches = {name: outputs[name.replace("past", "present")] for name in caches}
        found[step["name"]] = outputs["logits"]
    return found


def saved(logits: dict[str, np.ndarray], folder: Path) -> str:
    folder.mkdir()
    for name, array in logits.items():
        np.save(folder / f"{name}.npy", array)
    return str(folder)


def test_outputs_of_another_runtime_are_judged(kept: Path, tmp_path: Path) -> None:
    logits = run_sample(kept, "0")
    code, said = check(kept, "--outputs", saved(logits, tmp_path / "right"))
    assert code == 0 and said.endswith("passed\n"), said
    flat = {name: array.ravel() for name, array in logits.items()}  # others keep no leading ones
    assert check(kept, "--outputs", saved(flat, tmp_path / "flat"))[0] == 0
    some = {name: array for name, array in logits.items() if name.startswith("prefill")}
    code, said = check(kept, "--outputs", saved(some, tmp_path / "some"))
    assert code == 0 and "not compared: decode-1, decode-2" in said
    code, said = check(kept, "--outputs", saved({**logits, "decode-2": logits["decode-1"]}, tmp_path / "wrong"))
    assert code == 1 and "decode: worst in decode-2: error" in said and "prefill: ok" in said
    code, said = check(kept, "--outputs", saved({**logits, "decode-2": logits["decode-2"] * np.nan}, tmp_path / "nan"))
    assert code == 1 and "decode-2: FAIL: not finite" in said
    code, said = check(kept, "--outputs", saved({"prefill-1": np.zeros(3)}, tmp_path / "shape"))
    assert code == 1 and "prefill-1: FAIL: not finite, or of another shape than expected/prefill-1.npy" in said
    code, said = check(kept, "--outputs", saved({}, tmp_path / "none"))
    assert code == 1 and "prefill-1.npy" in said


def test_rounding_is_named_and_accepted_only_where_it_is_said(kept: Path, tmp_path: Path) -> None:
    folder = saved(run_sample(kept, "4"), tmp_path / "rounded")
    code, said = check(kept, "--outputs", folder)
    assert code == 1 and "like a8-g32" in said and "--precision a8-g32 accepts it" in said
    code, said = check(kept, "--outputs", folder, "--precision", "a8-g32")
    assert code == 0, said
    assert check(kept, "--outputs", folder, "--precision", "a16-f16")[0] == 1
    code, said = check(kept, "--outputs", folder, "--precision", "a9")
    assert code == 1 and "nothing is predicted for a9" in said


@pytest.mark.parametrize("dialect", ["opset21", "opset17"])
def test_complete_inputs_give_the_expected_logits(dialect: str, tmp_path: Path) -> None:
    """The cache that the decode step is given comes from the reference, not from the graph."""
    into = export(export_case("qwen2", dialect=dialect, batch=2), tmp_path)
    code, said = check(into, "--inputs", str(tmp_path / "all"))
    assert code == 0, said
    for step, graph in (("prefill-1", "prefill.onnx"), ("decode-1", "decode.onnx")):
        session = onnxruntime.InferenceSession(str(into / graph), providers=["CPUExecutionProvider"])
        inputs = {path.stem: np.load(path) for path in (tmp_path / "all" / step).iterdir()}
        for wanted in session.get_inputs():
            assert list(inputs[wanted.name].shape) == wanted.shape
        logits = dict(zip([each.name for each in session.get_outputs()], session.run(None, inputs), strict=True))
        np.save(tmp_path / f"{step}.npy", logits["logits"])
    precision = ["--precision", "a8-g32"] if dialect == "opset21" else []
    code, said = check(into, "--outputs", str(tmp_path), *precision)
    assert code == 0 and "prefill: ok" in said and "decode: ok" in said, said


def test_the_checker_refuses_a_provider_that_is_not_there(kept: Path) -> None:
    code, said = check(kept, "--provider", "NoExecutionProvider")
    assert code == 1 and "no NoExecutionProvider here; present: " in said


def test_the_readme_tells_what_is_there(variant: tuple[Case, Path]) -> None:
    case, into = variant
    page = (into / "README.md").read_text()
    assert page.startswith(f"# tiny-{case.scheme}, {case.options['dialect']}\n")
    for path in into.iterdir():
        assert path.is_dir() or path.name in page + "README.md"
    assert "Nobody here has executed" in page
    assert all(vendor.name in page and "GRAPH" in vendor.call for vendor in vendors.VENDORS)
    assert "None" not in page and "nan" not in page


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dialect": "contrib"}, "dialect contrib"),
        ({"dialect": "opset18"}, "opset21 or opset17"),
        ({"scheme": "bf16"}, "scheme bf16: the graph is built for int8, int4, fp16"),
        ({"family": "gemma"}, "architecture gemma"),
    ],
)
def test_what_cannot_be_exported(changes: dict[str, str], says: str) -> None:
    support = Onnx().export_support(export_case(**changes))
    assert not support.ok and says in (support.detail or "")
