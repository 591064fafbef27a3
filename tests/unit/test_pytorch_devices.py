"""Devices of torch that are not here: selection, probe, refusal, what they are recorded as, and the path they share."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from backends.pytorch import Cuda, Mlu, Musa, Npu, Rocm, Torch, Xpu, copier, devices, numerics
from backends.pytorch.compiling import compiled, wanted
from backends.pytorch.kinds import CPU, KINDS, maker
from backends.pytorch.products import Dense, RowScaled, WidenedDequantized
from bench import registry
from bench.conformance import contract, manners, numbers, stepping
from bench.conformance.models import Variant
from bench.conformance.subject import Subject
from bench.environments.installing import want
from bench.errors import PrerequisiteError, UsageError
from bench.types import LoadGroup, Option, Workload
from tests import fakes, standin
from tests.fakes import NOTHING

PROMPT, OPTIONS = Workload(name="pp4", prompt_tokens=4, new_tokens=0), {"compile": None, "ipex": False}
ADAPTERS: tuple[type[Torch], ...] = (Cuda, Rocm, Xpu, Npu, Musa, Mlu)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject("tests.standin:StandIn", tmp_path_factory.mktemp("standin"))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    standin.install(monkeypatch)


def test_every_kind_is_a_backend() -> None:
    assert {kind.name for kind in KINDS.values()} <= set(registry.names())
    assert {adapter.kind.name for adapter in ADAPTERS} | {"cpu"} == set(KINDS)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_stock_torch_for_the_processor_says_what_is_missing(adapter: type[Torch]) -> None:
    kind = adapter.kind
    if kind.build and getattr(torch.version, kind.build, None):
        pytest.skip(f"this torch is built for {kind.name}")
    found = adapter().probe()
    assert not found.ok and found.remedy
    assert found.reason and (kind.extension or "not built for") in found.reason
    needed = adapter().requirements(kind.name)
    assert needed.packages or "image" in (needed.notes or "")
    with pytest.raises(UsageError):
        adapter().requirements("cpu")


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_each_is_found_named_and_chosen(monkeypatch: pytest.MonkeyPatch, adapter: type[Torch]) -> None:
    kind = standin.offer(monkeypatch, adapter.kind.name)
    monkeypatch.setattr(devices, "NVIDIA_DRIVER", Path(__file__))
    found = adapter().probe()
    assert found.ok, found.reason
    assert [(each.kind, each.index, each.uuid) for each in found.devices] == [
        (kind.name, 0, "GPU-1234"),
        (kind.name, 1, "GPU-1234"),
    ]
    assert found.versions["torch"] == torch.__version__
    assert not kind.build or found.versions[kind.build] == "9.9"
    assert not kind.extension or found.versions[kind.extension] == "1.2.3"
    there = devices.present(kind)
    for asked in ("1", f"{kind.name}:1", f"{kind.word}:1", f"{kind.name.upper()}:1"):
        assert devices.place_of(kind, asked, there) == 1
    for asked in (None, "0", kind.name, kind.word, f"{kind.word}:0"):
        assert devices.place_of(kind, asked, there) == 0
    for asked in ("2", f"{kind.name}:7", "cpu", "gpu", "x:9", "1:1", f"{kind.name}:x"):
        with pytest.raises(PrerequisiteError) as refused:
            devices.place_of(kind, asked, there)
        assert f"present: {kind.name}:0, {kind.name}:1" in str(refused.value)
    with pytest.raises(PrerequisiteError):
        adapter().open(LoadGroup(cases=(fakes.case(PROMPT, backend=kind.name, device="9", options=OPTIONS),)), NOTHING)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_driver_that_offers_nothing_is_told_apart_from_one_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, adapter: type[Torch]
) -> None:
    kind = standin.offer(monkeypatch, adapter.kind.name, is_available=lambda: False)
    found = adapter().probe()
    assert found.reason and (Path(kind.node).exists() or f"there is no {kind.node}" in found.reason)
    monkeypatch.setattr("backends.pytorch.devices.Path", lambda path: tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode: True)
    assert "the driver offers no device" in str(adapter().probe().reason)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "may not be opened by this user" in str(adapter().probe().reason)
    assert adapter().probe().remedy


@pytest.mark.parametrize("name", ["npu", "musa", "mlu"])
def test_an_extension_that_breaks_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    kind = KINDS[name]

    def broken(package: str) -> None:
        raise OSError("libascendcl.so: cannot open shared object file")

    monkeypatch.setattr(devices, "import_module", broken)
    with pytest.raises(PrerequisiteError, match=f"{kind.extension} cannot be imported: libascendcl.so"):
        devices.ready(kind)


@pytest.mark.parametrize("name", ["musa", "mlu"])
def test_what_pip_cannot_bring_is_not_installed(name: str) -> None:
    with pytest.raises(UsageError, match=r"pip cannot bring its runtime; use .*image"):
        want(registry.load(name), registry.target(name), None, sys.executable)


def test_a_build_for_another_maker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    standin.offer(monkeypatch, "rocm")
    assert Rocm().probe().ok
    assert "not built for NVIDIA GPUs" in str(Cuda().probe().reason)
    standin.offer(monkeypatch, "cuda")
    assert "not built for AMD GPUs" in str(Rocm().probe().reason)


@pytest.mark.parametrize(
    ("kind", "version", "name", "arch", "driver", "found"),
    [
        ("cuda", "2.11.0+cu129", "NVIDIA H200", "", False, "cuda"),
        ("cuda", "2.6.0", "Tesla V100-SXM2-16GB", "", True, "cuda"),
        ("cuda", "2.6.0", "Tesla V100-SXM2-16GB", "", False, "unknown"),
        ("cuda", "2.10.0+metax3.8.1.0", "MetaX C500", "", False, "metax"),
        ("cuda", "2.10.0", "MetaX C550", "", True, "metax"),
        ("cuda", "2.7.1+corex.4.4.0", "Iluvatar BI-V150", "", False, "iluvatar"),
        ("cuda", "2.9.0+ppu2.0.0.oe", "PPU-ZW810", "", False, "thead"),
        ("rocm", "2.9.0+das.opt1.dtk2604", "BW", "gfx936:sramecc+:xnack-", False, "hygon"),
        ("rocm", "2.9.0+rocm6.4", "BW", "gfx936:sramecc+:xnack-", False, "hygon"),
        ("rocm", "2.9.0+rocm6.4", "AMD Instinct MI300X", "gfx942:sramecc+:xnack-", False, "rocm"),
        ("xpu", "2.9.0+xpu", "Intel(R) Arc(TM) B580 Graphics", "", False, "xpu"),
        ("npu", "2.10.0", "Ascend910B2", "", False, "npu"),
    ],
)
def test_a_chip_is_recorded_as_what_it_is(
    kind: str, version: str, name: str, arch: str, driver: bool, found: str
) -> None:
    assert maker(KINDS[kind], version, name, arch, driver) == found


def test_an_impostor_is_named_in_the_facts_of_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    standin.offer(monkeypatch, "cuda", get_device_name=lambda index: "MetaX C500")
    (first, _) = Cuda().probe().devices
    assert (first.kind, first.name) == ("metax", "MetaX C500")


def test_a_device_has_its_address_where_torch_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's properties of NVIDIA's and AMD's devices have it (torch/csrc/cuda/Module.cpp)."""
    standin.offer(monkeypatch, "cuda")
    assert Cuda().probe().devices[1].pci is None
    place = {"pci_domain_id": 1, "pci_bus_id": 0xC1, "pci_device_id": 2}
    told = SimpleNamespace(uuid="GPU-1234", gcnArchName="", **place)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: told)
    assert Cuda().probe().devices[1].pci == "0001:c1:02.0"


def test_a_device_without_properties_has_no_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    def properties(index: int) -> Any:
        raise RuntimeError("not supported")

    standin.offer(monkeypatch, "musa", get_device_properties=properties)
    assert [each.uuid for each in Musa().probe().devices] == [None, None]


@pytest.mark.parametrize(
    ("present", "running", "what"),
    [
        (None, "2.8.0+xpu", "is not installed"),
        ("2.8.10+xpu", "2.13.0+xpu", "2.8.10+xpu does not fit torch 2.13.0+xpu"),
        ("2.8.10+xpu", "2.8.0+xpu", None),
    ],
)
def test_ipex_is_looked_at_before_it_can_end_the_process(
    monkeypatch: pytest.MonkeyPatch, present: str | None, running: str, what: str | None
) -> None:
    def version(package: str) -> str:
        if present is None:
            raise devices.metadata.PackageNotFoundError(package)
        return present

    imported: list[str] = []
    monkeypatch.setattr(devices.metadata, "version", version)
    monkeypatch.setattr(devices.torch, "__version__", running)
    monkeypatch.setattr(devices, "import_module", imported.append)
    if what:
        with pytest.raises(PrerequisiteError, match=what.replace("+", r"\+")):
            devices.use_ipex()
        assert not imported
    else:
        assert devices.use_ipex() == present and imported == [devices.IPEX]


def test_switches_are_set_and_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimpleNamespace(matmul=SimpleNamespace(allow_tf32=True, allow_bf16_reduced_precision_reduction=True))
    new = SimpleNamespace(matmul=SimpleNamespace(fp32_precision="tf32", allow_tf32="must not be touched"))
    for cuda, told in (
        (old, {"torch.backends.cuda.matmul.allow_tf32": "False"}),
        (new, {"torch.backends.cuda.matmul.fp32_precision": "ieee"}),
    ):
        fake = SimpleNamespace(
            backends=SimpleNamespace(cuda=cuda),
            npu=SimpleNamespace(matmul=SimpleNamespace(allow_hf32=True), conv=SimpleNamespace(allow_hf32=True)),
        )
        monkeypatch.setattr(numerics, "torch", fake)
        found = numerics.set_exact()
        assert told.items() <= found.items() and found["torch.npu.conv.allow_hf32"] == "False"
    assert new.matmul.allow_tf32 == "must not be touched" and not old.matmul.allow_bf16_reduced_precision_reduction
    assert not fake.npu.matmul.allow_hf32


CHECKS = (
    *(check for check in stepping.CHECKS + numbers.CHECKS),
    *(check for check in contract.CHECKS if "session" in check.function.__name__),
    *(
        check for check in manners.CHECKS if check.function.__name__ != "an_absent_device_is_refused"
    ),  # it calls itself cpu
)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.function.__name__)
def test_the_path_that_all_devices_share_conforms(subject: Subject, check: Any) -> None:
    for arguments in check.arguments():
        check.function(subject, *arguments)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("scheme", "product", "compute"),
    [
        ("int8", RowScaled, "bf16"),
        ("int4", WidenedDequantized, "bf16"),
        ("fp16", Dense, "f16"),
        ("bf16", Dense, "bf16"),
    ],
)
def test_halves_are_multiplied_and_the_facts_say_so(subject: Subject, scheme: str, product: type, compute: str) -> None:
    with subject.opened(Variant(fidelity="native", scheme=scheme)) as session:
        facts, (use,) = session.facts(), session.memory()
        assert isinstance(session._loaded.products["blk.0.attn_output.weight"], product)  # type: ignore[attr-defined]
    assert facts.precision_classes == (compute,) and facts.kv_cache == compute
    (device,) = facts.devices
    assert (device.kind, device.name, device.uuid) == ("standin", standin.NAME, standin.UUID)
    assert facts.threads is None and facts.isa is None
    told = {entry.source: entry.claim for entry in facts.evidence}
    assert told["torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction"] == "False"
    # The stand-in lies in the host's memory, which is no device's.
    assert (use.allocator_peak_bytes, use.device_delta_bytes) == (None, None)


@pytest.mark.skipif(not shutil.which("c++"), reason="torch.compile needs a C++ compiler for a processor")
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own code
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("scheme", ["int8", "int4", "fp16"])
def test_compiled_decode_errs_as_its_class_predicts(
    subject: Subject, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        standin.StandIn, "options", {"compile": Option(kind=bool, default=True, help="decode through torch.compile")}
    )
    variant = Variant(model="qwen2", scheme=scheme, fidelity="native")
    with subject.opened(variant) as session:
        assert any(entry.source == "torch.compile" for entry in session.facts().evidence)
        told = [session.step(np.array([[token]], np.int32)).tolist() for token in (1, 2)]
        session.rewind(1)
        session._told = None  # type: ignore[attr-defined]
        session.facts()  # executes the compiled step once more, behind what is filled
        assert session.step(np.array([[2]], np.int32)).tolist() == told[1]
    numbers.native_errs_as_its_class_predicts(subject, variant)
    stepping.rewind_forgets_the_rest(subject, variant)


def test_compiling_is_the_default_where_torch_knows_the_device(subject: Subject) -> None:
    case = subject.case(Variant(fidelity="native"))
    assert [kind.name for kind in KINDS.values() if wanted(kind, case)] == ["cuda", "rocm", "xpu"]
    assert not wanted(KINDS["cuda"], subject.case(Variant(fidelity="exact")))
    if "triton" in sys.modules or devices.metadata.packages_distributions().get("triton"):
        pytest.skip("triton is here")
    with pytest.raises(PrerequisiteError, match="--set compile=off"):
        compiled(KINDS["cuda"], SimpleNamespace(), case)  # type: ignore[arg-type]


@pytest.mark.usefixtures("installed")
def test_a_copy_moves_what_it_says(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copier, "BYTES", 1 << 20)
    mover = subject.backend.mover(subject.case(Variant()))
    assert mover is not None and (mover.kind, mover.moved_bytes) == ("standin", 2 << 20)
    mover._to.zero_()  # type: ignore[attr-defined]
    mover.move()
    assert mover._to.min() == 1  # type: ignore[attr-defined]
    mover.close()


def test_memory_of_a_device_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    standin.offer(monkeypatch, "xpu")
    device = torch.device("xpu", 1)
    assert devices.free_bytes(device) == standin.TOTAL_BYTES * 3 // 4 and devices.peak_bytes(device) == 5 << 20
    standin.offer(monkeypatch, "mlu", mem_get_info=None, max_memory_allocated=None)
    device = SimpleNamespace(type="mlu")
    assert devices.free_bytes(device) is devices.peak_bytes(device) is None  # type: ignore[arg-type]
    assert devices.free_bytes(torch.device(CPU.word)) is None
