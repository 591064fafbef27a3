"""The library of `llamacpp` and what is around it: versions, log, threads, preparing; nothing without the runtime."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from backends.llamacpp import GGUF, SCHEMES, LlamaCpp, library, pool
from backends.llamacpp.builds import ACCELERATORS, PINNED
from backends.llamacpp.library import Log
from bench.errors import CaseError, PrerequisiteError
from bench.types import Family, LoadGroup, Prepared
from tests.llamacpp_models import OPTIONS, Models, case, ids
from tests.tiny import tiny_arch

ROOT = Path(__file__).parents[2]
CASE = case(tiny_arch())
NOTHING = Prepared(path="", files=("model.gguf",), notes={"arch": asdict(CASE.arch)})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("llamacpp"))


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The library is asked for anew."""
    kept = library.library
    monkeypatch.setattr(library, "library", library.Library)
    monkeypatch.setattr("backends.llamacpp.session.library", library.Library)
    yield
    assert kept() is kept()


def test_importing_the_adapter_loads_no_runtime() -> None:
    loads = "import sys, backends.llamacpp; print([m for m in sys.modules if m.startswith('llama_cpp')])"
    done = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_probe_tells_versions_and_devices() -> None:
    told = LlamaCpp().probe()
    assert told.ok and told.versions["llama-cpp-python"] == PINNED
    assert told.versions["llama.cpp"] and "CPU" in told.versions["ggml"].split(" with ")[1].split("+")
    assert [device.kind for device in told.devices][-1] == "cpu" and told.devices[-1].name != ""


@pytest.mark.usefixtures("fresh")
def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_cpp.__version__", "0.3.37")
    with pytest.raises(PrerequisiteError) as caught:
        LlamaCpp().open(LoadGroup(cases=(CASE,)), NOTHING)
    assert caught.value.what == f"llama-cpp-python 0.3.37 is installed, {PINNED} is needed"
    assert caught.value.remedy == "bench setup llamacpp"
    told = LlamaCpp().probe()
    assert not told.ok and told.remedy == "bench setup llamacpp" and "0.3.37 is installed" in str(told.reason)


@pytest.mark.usefixtures("fresh")
def test_a_library_from_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", "/opt/mine")
    with pytest.raises(PrerequisiteError, match=r"LLAMA_CPP_LIB_PATH names another library.*unset LLAMA_CPP_LIB_PATH"):
        LlamaCpp().open(LoadGroup(cases=(CASE,)), NOTHING)


@pytest.mark.usefixtures("fresh")
def test_without_the_package_the_remedy_is_bench_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(PrerequisiteError, match=r"llama\.cpp is missing or broken.*; bench setup llamacpp"):
        LlamaCpp().open(LoadGroup(cases=(CASE,)), NOTHING)
    told = LlamaCpp().probe()
    assert not told.ok and told.remedy == "bench setup llamacpp"


def test_one_copy_of_each_library_is_loaded() -> None:
    """A wheel holds each three times; of a second ggml devices, log and abort callback would be others."""
    library.library()
    if not Path("/proc/self/maps").exists():
        pytest.skip("only Linux tells what is loaded")
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "llama_cpp/lib" in line}
    names = [Path(path).name.partition(".")[0] for path in mapped]
    assert {"libllama", "libggml", "libggml-base", "libggml-cpu"} <= set(names) and len(names) == len(set(names))


class Api:
    """llama-cpp-python's part in logging: keeps the callback, so that a test can speak."""

    llama_log_callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

    def llama_log_set(self, callback: Any, data: object) -> None:
        self.say = lambda level, text: callback(level, text.encode(), None)


DEBUG, INFO, WARN, ERROR, CONTINUED = 1, 2, 3, 4, 5  # enum ggml_log_level


@pytest.fixture
def spoken() -> tuple[Log, Any]:
    api = Api()
    log = Log(api)
    return log, api.say


def test_lines_that_are_said_in_parts_are_joined(spoken: tuple[Log, Any], capfd: pytest.CaptureFixture[str]) -> None:
    log, say = spoken
    with log.since() as said:
        say(INFO, "load: ")
        say(CONTINUED, ".")
        say(CONTINUED, ".\n")
        say(WARN, "two\nlines\n")
    assert said == ["load: ..", "two", "lines"]
    assert capfd.readouterr().err == "load: ..\ntwo\nlines\n"


def test_debugging_is_dropped_and_what_continues_it(spoken: tuple[Log, Any], capfd: pytest.CaptureFixture[str]) -> None:
    log, say = spoken
    with log.since() as said:
        say(DEBUG, "a")
        say(CONTINUED, "b\n")
        say(ERROR, "c\n")
        say(CONTINUED, "d\n")
    assert said == ["c", "d"] and capfd.readouterr().err == "c\nd\n"


def test_each_block_has_its_own_lines(spoken: tuple[Log, Any]) -> None:
    log, say = spoken
    with log.since() as first:
        say(INFO, "one\n")
    with pytest.raises(ValueError), log.since() as second:
        say(INFO, "\n \ntwo\n")
        raise ValueError
    say(INFO, "three\n")
    assert (first, second) == (["one"], ["two"])
    assert log.last(2) == ["two", "three"]


def test_bytes_that_are_no_text_are_kept(capfd: pytest.CaptureFixture[str]) -> None:
    api = Api()
    log = Log(api)
    log._take(INFO, b"name \xff\n", None)
    assert log.last(1) == ["name �"]


def test_schemes_families_and_providers() -> None:
    assert all(LlamaCpp().support(replace(CASE, scheme=scheme)).ok for scheme in SCHEMES)
    unknown = replace(CASE, arch=replace(CASE.arch, family=cast(Family, "martian")))
    assert LlamaCpp().support(unknown).reason == "NOT_WIRED"
    assert LlamaCpp().support(replace(CASE, scheme="q4_k_m")).reason == "NOT_WIRED"
    assert LlamaCpp().support(replace(CASE, provider="CUDAExecutionProvider")).reason == "NEVER"
    many = replace(CASE, workload=replace(CASE.workload, batch=257))
    assert LlamaCpp().support(many).reason == "NOT_UPSTREAM"


def test_preparing_gives_the_file_a_second_name(models: Models) -> None:
    made = models.made()
    assert made.prepared.files == (GGUF,)
    assert made.gguf.stat().st_ino == made.artifact.gguf.stat().st_ino and not made.gguf.is_symlink()


def test_where_linking_fails_the_file_is_copied(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def across_disks(*paths: object) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", across_disks)
    artifact, told = models.made().artifact, []
    LlamaCpp().prepare(CASE, artifact, tmp_path, lambda done, total: told.append((done, total)))
    copied = tmp_path / GGUF
    assert copied.read_bytes() == artifact.gguf.read_bytes()
    assert copied.stat().st_ino != artifact.gguf.stat().st_ino and told == [(1, 1)]


def test_another_scheme_is_not_prepared(tmp_path: Path) -> None:
    artifact: Any = SimpleNamespace(scheme="q8_0")
    with pytest.raises(CaseError, match="q8_0 is not wired") as caught:
        LlamaCpp().prepare(CASE, artifact, tmp_path, lambda done, total: None)
    assert caught.value.phase == "prepare" and not list(tmp_path.iterdir())


def test_preparing_is_the_same_for_all_options() -> None:
    """So that one folder serves them all: no option is part of its key."""
    assert not [name for name, option in LlamaCpp.options.items() if option.prepare]
    assert LlamaCpp.builder == 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_resident_bytes_are_those_of_the_plan(models: Models, scheme: str) -> None:
    """A tiny file is mostly vocabulary and norms: the exact share is that of the weights alone."""
    made = models.made(scheme, hidden=256, ffn=512, vocab=1024, heads=8)
    weights = sum(made.artifact.tensor(name).data.nbytes for name in made.artifact.names())
    with models.opened(scheme, exact=True, arch={"hidden": 256, "ffn": 512, "vocab": 1024, "heads": 8}) as session:
        exact = session.facts().resident_weight_bytes or 0
    asked = replace(CASE, scheme=scheme, fidelity="exact")
    assert exact / weights == pytest.approx(LlamaCpp().resident_ratio(asked), rel=0.2)
    assert LlamaCpp().resident_ratio(replace(CASE, scheme=scheme)) == (1.7 if scheme == "int4" else 1.0)


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, list[bool], int, int, bool]]]:
    """What each pool of threads is made with, and that as many are freed."""
    made: list[tuple[int, list[bool], int, int, bool]] = []
    freed: list[int] = []
    real = pool._function

    def function(lib: Any, registered: int, name: bytes, result: Any, argument: Any) -> Any:
        found = real(lib, registered, name, result, argument)

        def make(at: Any) -> Any:
            params = ctypes.cast(at, ctypes.POINTER(pool.Params))[0]
            mask = list(params.cpumask)
            made.append((params.n_threads, mask, params.prio, params.poll, params.strict_cpu))
            return found(at)

        def free(at: int) -> None:
            freed.append(at)
            found(at)

        return make if name.endswith(b"new") else free

    monkeypatch.setattr(pool, "_function", function)
    yield made
    assert len(freed) == len(made) == len(set(freed))


def test_a_pool_is_attached_and_freed_with_its_options(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(monkeypatch) as made:
        with models.opened(cpu_mask="0x5", cpu_strict=True, poll=7, prio=0) as session:
            assert session.step(ids(1, 3)).shape == (1,)
        ((count, mask, prio, poll, strict),) = made
    assert (count, prio, poll, strict) == (1, 0, 7, True)
    assert mask == [True, False, True] + [False] * (pool.MOST_CORES - 3)


def test_other_threads_for_prefills_are_a_second_pool(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(monkeypatch) as made:
        with models.opened(threads=1, threads_batch=2) as session:
            assert session._context and len(session._context.pool._made) == 2
            api, at = session._lib.api, session._context.at
            assert (api.llama_n_threads(at), api.llama_n_threads_batch(at)) == (1, 2)
            session.step(ids(1, 3))
        assert [count for count, *_ in made] == [1, 2]
    with recorded(monkeypatch) as made, models.opened(threads=1, threads_batch=1):
        assert len(made) == 1


def test_a_pool_that_cannot_be_made_is_a_case_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_function", lambda *asked: lambda at: None)
    with pytest.raises(CaseError, match="no pool of 3 threads"):
        pool.Pool(library.library(), OPTIONS, 3, 3)


def test_the_page_names_every_option_and_accelerator() -> None:
    page = (ROOT / "docs" / "backends" / "llamacpp.md").read_text(encoding="utf-8")
    firsts = [re.findall(r"`([^`]+)`", line.split(" | ")[0]) for line in page.splitlines() if line.startswith("| `")]
    told = [name for names in firsts for name in names if name in {*OPTIONS, *ACCELERATORS}]
    assert sorted(told) == sorted([*OPTIONS, *ACCELERATORS])
