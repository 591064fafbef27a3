"""The cache: folders appear whole or not at all, alterations are noticed, a full disk is one clear line."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from bench.artifacts import cache, folders, reference, seals, synthesize
from bench.artifacts.noise import CLASSES
from bench.artifacts.reader import open_artifact
from bench.artifacts.stored_reference import load_reference
from bench.errors import PrerequisiteError, UsageError
from tests.tiny import tiny_arch


@pytest.fixture(autouse=True)
def cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def age(path: Path) -> None:
    """Another modification time, however coarse the clock of the file system is."""
    os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**9))


def ensure(**changes: Any) -> Path:
    return cache.ensure_artifact("tiny", tiny_arch("qwen2"), "int8", **changes)


def test_second_call_reads_what_the_first_wrote() -> None:
    calls: list[tuple[int, int]] = []
    first = ensure(progress=lambda done, total: calls.append((done, total)))
    assert calls and calls[-1][0] == calls[-1][1]
    inode, count = (first / "model.gguf").stat().st_ino, len(calls)
    assert ensure(progress=lambda done, total: calls.append((done, total))) == first
    assert len(calls) == count and (first / "model.gguf").stat().st_ino == inode
    digest = open_artifact(first).digest
    assert ensure(force=True) == first
    assert (first / "model.gguf").stat().st_ino != inode and open_artifact(first).digest == digest


def test_every_input_has_a_folder_of_its_own() -> None:
    arch = tiny_arch()
    places = [
        cache.artifact_folder("tiny", arch, "int8"),
        cache.artifact_folder("tiny", arch, "int8", seed=1),
        cache.artifact_folder("tiny", arch, "int4"),
        cache.artifact_folder("other", arch, "int8"),
        cache.artifact_folder("tiny", tiny_arch(rope_theta=2e4), "int8"),
    ]
    assert len(set(places)) == 5
    assert cache.artifact_folder("../../x", arch, "int8").parent == places[0].parent


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(UsageError, match="guessed"):
        cache.ensure_artifact("tiny", tiny_arch(), "int8", weights="guessed")


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), cache.build_folder(tmp_path / "place" / "final") as building:
        (building / "half").write_text("half")
        raise KeyboardInterrupt
    assert list((tmp_path / "place").iterdir()) == []


def test_a_build_replaces_what_was_there(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with cache.build_folder(tmp_path / "place" / "final") as building:
            (building / "sub").mkdir()
            (building / "sub" / text).write_text(text)
    assert files_under(tmp_path / "place") == {"final/sub/two"}


def test_everything_is_synced_before_the_rename_and_the_parent_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync, rename = folders._sync, Path.rename

    def noted_sync(path: Path) -> None:
        events.append(f"sync {path.name}")
        sync(path)

    def noted_rename(self: Path, target: Path) -> Path:
        events.append(f"rename {Path(target).name}")
        return rename(self, target)

    monkeypatch.setattr(folders, "_sync", noted_sync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    with cache.build_folder(tmp_path / "place" / "final") as building:
        (building / "file").write_text("x")
    assert events == ["sync file", f"sync {building.name}", "rename final", "sync place"]


_KILLED = """
import os, signal, sys
from pathlib import Path
from bench.artifacts import folders
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(folders, sys.argv[2], die)
with folders.build_folder(Path(sys.argv[1])) as building:
    (building / "file").write_text("x")
"""


@pytest.mark.parametrize("at", ["_commit", "_sync", "_unlock"])
def test_a_killed_build_is_cleaned_up_by_the_next(at: str, tmp_path: Path) -> None:
    final = tmp_path / "place" / "final"
    done = subprocess.run([sys.executable, "-c", _KILLED, str(final), at], check=False)
    assert done.returncode == -signal.SIGKILL
    assert final.exists() == (at == "_unlock")
    assert any(path.name.startswith(".") for path in final.parent.iterdir())
    with cache.build_folder(final) as building:
        (building / "again").write_text("y")
    assert files_under(final.parent) == {"final/again"}


def test_prune_removes_leftovers_of_the_killed(cache_root: Path) -> None:
    final = cache_root / "prepared" / "final"
    subprocess.run([sys.executable, "-c", _KILLED, str(final), "_commit"], check=False)
    assert list(final.parent.iterdir())
    assert cache.prune() == []
    assert list(final.parent.iterdir()) == []


def test_builders_of_the_same_folder_wait_for_each_other(tmp_path: Path) -> None:
    final, inside, order = tmp_path / "final", threading.Event(), []

    def second() -> None:
        inside.wait()
        with cache.build_folder(final) as building:
            order.append("second")
            (building / "second").write_text("x")

    thread = threading.Thread(target=second)
    thread.start()
    with cache.build_folder(final) as building:
        inside.set()
        (building / "first").write_text("x")
        with folders.folder_lock_if_free(final) as free:
            assert not free
        order.append("first")
    thread.join()
    assert order == ["first", "second"] and files_under(final) == {"second"}


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_too_little_disk_is_refused_before_anything_is_written(
    cache_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(PrerequisiteError, match=r"1000 bytes\) free, .* bytes\) needed") as caught:
        ensure()
    assert str(cache_root) in str(caught.value) and "bench cache prune" in str(caught.value)
    assert files_under(cache_root) == set()


@pytest.mark.parametrize("where", ["_reserve", "_write_tensor"])
def test_a_disk_that_fills_up_is_one_clear_line_and_leaves_nothing(
    where: str, cache_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(synthesize, where, full)
    with pytest.raises(PrerequisiteError, match=r"disk full: .* free, .* needed"):
        ensure()
    assert files_under(cache_root) == set()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(PrerequisiteError, match="BENCH_CACHE"):
        ensure()


def test_too_little_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only a control group has too little."""
    monkeypatch.setattr(cache, "memory_available_bytes", lambda: 10**6)
    with pytest.raises(PrerequisiteError, match=r"1\.00 MB of memory available"):
        ensure()


@pytest.mark.parametrize("full", [False, True])
def test_seal_catches_alteration(full: bool) -> None:
    folder = ensure()
    cache.check_seal(folder, full=full)
    table = json.loads((folder / "tensors.json").read_text())
    offset = next(entry["offset"] for entry in table["tensors"] if entry["name"] == "blk.1.attn_q.bias")
    with (folder / "model.gguf").open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
    age(folder / "model.gguf")
    with pytest.raises(PrerequisiteError, match=r"model.gguf: is not what was sealed .*bench cache prune tiny-int8-"):
        cache.check_seal(folder, full=full)
    with pytest.raises(PrerequisiteError, match=r"model.gguf"):
        ensure()
    assert [problem.where for problem in cache.verify()] == [str(folder / "model.gguf")]


def test_full_check_sees_what_hides_behind_equal_stamps() -> None:
    folder = ensure()
    path = folder / "tensors.json"
    stamp = path.stat()
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    cache.check_seal(folder)
    with pytest.raises(PrerequisiteError, match=r"tensors.json: is not what was sealed"):
        cache.check_seal(folder, full=True)


def test_a_copy_is_read_once_and_then_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ensure(), copy)
    digest = cache.seal_digest(copy)
    cache.check_seal(copy)
    monkeypatch.setattr(seals, "_digested", lambda *_: pytest.fail("read again"))
    cache.check_seal(copy)
    assert cache.seal_digest(copy) == digest


@pytest.mark.parametrize("damage", ["truncate", "remove", "no seal", "broken seal", "escape"])
def test_seal_names_what_is_broken(damage: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(bytes(1000))
    cache.seal(tmp_path, ["sub/file"])
    cache.check_seal(tmp_path, full=True)
    text = (tmp_path / "seal.json").read_text()
    match damage:
        case "truncate":
            os.truncate(tmp_path / "sub" / "file", 999)
        case "remove":
            (tmp_path / "sub" / "file").unlink()
        case "no seal":
            (tmp_path / "seal.json").unlink()
        case "broken seal":
            (tmp_path / "seal.json").write_text(text[:-9])
        case "escape":
            (tmp_path / "seal.json").write_text(text.replace("sub/file", "../file"))
    with pytest.raises(PrerequisiteError, match=f"`bench cache prune {tmp_path.name}` removes it") as caught:
        cache.check_seal(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_large_files_are_sealed_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seals, "PART_BYTES", 100)
    monkeypatch.setattr(seals, "READ_BYTES", 7)
    (tmp_path / "file").write_bytes(bytes(range(250)))
    cache.seal(tmp_path, ["file"])
    for position in (0, 99, 100, 249):
        data = bytearray(range(250))
        data[position] ^= 1
        (tmp_path / "file").write_bytes(data)
        age(tmp_path / "file")
        with pytest.raises(PrerequisiteError, match="not what was sealed"):
            cache.check_seal(tmp_path)


def test_seal_digest_follows_content_not_stamps(tmp_path: Path) -> None:
    digests = []
    for content in (b"one", b"one", b"two"):
        (tmp_path / "file").write_bytes(content)
        cache.seal(tmp_path, ["file"])
        digests.append(cache.seal_digest(tmp_path))
    assert digests[0] == digests[1] != digests[2]


def test_reference_is_cached_and_mended() -> None:
    folder = ensure()
    place = reference.ensure_reference(folder)
    stored = load_reference(place)
    assert stored.logits.shape == (32, 300) and set(stored.delta2) == set(CLASSES)
    artifact = open_artifact(folder)
    assert stored.digest == artifact.digest and np.array_equal(stored.ids, reference.gate_ids(artifact))
    assert (stored.delta2["f32"] == 0).all() and (stored.delta2["a8-g32"] > 0).all()
    centred = stored.logits - stored.logits.mean(axis=-1, keepdims=True)
    assert np.allclose((centred**2).sum(axis=-1), stored.centred2, rtol=1e-4)
    inode = (place / "logits.npy").stat().st_ino
    assert reference.ensure_reference(folder) == place and (place / "logits.npy").stat().st_ino == inode
    os.truncate(place / "logits.npy", 1000)
    with pytest.raises(PrerequisiteError, match="reference"):
        load_reference(place)
    assert load_reference(reference.ensure_reference(folder)).logits.shape == (32, 300)


def test_reference_of_a_cut_is_another() -> None:
    folder = ensure()
    whole, cut = (reference.ensure_reference(folder, layers) for layers in (None, 1))
    assert (whole.name, cut.name) == ("reference", "reference-cut1")
    assert load_reference(cut).digest == open_artifact(folder).cut(1).digest
    assert not np.allclose(load_reference(whole).logits, load_reference(cut).logits, atol=0.1)


@pytest.fixture
def two_entries(cache_root: Path) -> Iterator[tuple[Path, Path]]:
    artifact = ensure()
    prepared = cache.prepared_folder("onnx", "tiny-int8", "key")
    with cache.build_folder(prepared) as building:
        (building / "graph").write_bytes(bytes(5000))
        cache.seal(building, ["graph"])
    os.utime(prepared, (time.time() - 1000,) * 2)
    yield artifact, prepared


def test_entries_are_listed_oldest_first(two_entries: tuple[Path, Path]) -> None:
    artifact, prepared = two_entries
    listed = cache.entries()
    assert [(entry.path, entry.kind) for entry in listed] == [(prepared, "prepared"), (artifact, "artifact")]
    assert listed[0].bytes >= 5000 and listed[0].name == "onnx-tiny-int8-key"
    cache.check_seal(prepared)
    assert cache.entries()[1].path == prepared  # reading is using


def test_prune_goes_by_the_last_use_and_spares_what_is_being_built(two_entries: tuple[Path, Path]) -> None:
    artifact, prepared = two_entries
    with folders.folder_lock(prepared):
        assert cache.prune(older_than_s=500) == []
    assert [entry.path for entry in cache.prune(older_than_s=500)] == [prepared]
    assert artifact.exists() and not prepared.exists()
    assert [entry.path for entry in cache.prune()] == [artifact]
    assert cache.entries() == []


def test_prune_by_name(two_entries: tuple[Path, Path]) -> None:
    artifact, prepared = two_entries
    other = cache.prepared_folder("onnx", "tiny-int8", "other")
    with cache.build_folder(other) as building:
        cache.seal(building, [])
    for names, says in ((["x"], "unknown entry"), (["onnx-tiny"], "2 entries of the cache begin with onnx-tiny: "),
                        ([""], "unknown entry"), ([prepared.name, "x"], "unknown entry")):  # fmt: skip
        with pytest.raises(UsageError, match=says):
            cache.prune(names=names)
    assert len(cache.entries()) == 3
    assert [entry.path for entry in cache.prune(names=[prepared.name, "tiny-"])] == [prepared, artifact]
    assert [entry.path for entry in cache.entries()] == [other]


def test_certificates_are_listed_verified_and_removed(two_entries: tuple[Path, Path], cache_root: Path) -> None:
    artifact, prepared = two_entries
    place = cache_root / "certificates"
    place.mkdir()
    good, bad, half = place / "aaaa.json", place / "bbbb.json", place / "bbbb.1.partial"
    good.write_text('{"error": 1e-6}')
    bad.write_text('{"error": 1e-')
    half.write_text("{")
    assert {(entry.name, entry.bytes) for entry in cache.entries() if entry.kind == "certificate"} == {
        ("aaaa.json", 15), ("bbbb.json", 13),
    }  # fmt: skip
    (problem,) = cache.verify()
    assert problem.where == str(bad) and "`bench cache prune bbbb.json` removes it" in str(problem)
    cache.prune(names=["bbbb"])
    assert cache.verify() == [] and good.exists() and prepared.exists()
    cache.prune()
    assert list(place.iterdir()) == [] and not artifact.exists()


def test_verify_reads_references_too(two_entries: tuple[Path, Path]) -> None:
    artifact, prepared = two_entries
    place = reference.ensure_reference(artifact)
    steps: list[tuple[int, int]] = []
    assert cache.verify(lambda done, total: steps.append((done, total))) == []
    assert steps[-1] == (3, 3)
    (place / "ids.npy").write_bytes(bytes(256))
    (prepared / "seal.json").unlink()
    problems = {problem.where: problem.remedy for problem in cache.verify()}
    assert problems == {
        str(place / "ids.npy"): "it is made again when it is needed",
        str(
            prepared / "seal.json"
        ): f"`bench cache prune {prepared.name}` removes it; it is made again when it is needed",
    }


def test_scratch_is_removed_after_use_and_after_a_kill(cache_root: Path) -> None:
    with cache.scratch_folder("cut") as folder:
        assert not folder.exists()
        with cache.build_folder(folder) as building:
            (building / "file").write_text("x")
        with cache.scratch_folder("other"):
            assert folder.exists()
    (cache_root / "scratch" / "cut-1" / "folder").mkdir(parents=True)
    cache.prune()
    assert list((cache_root / "scratch").iterdir()) == []
