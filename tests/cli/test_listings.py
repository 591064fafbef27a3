"""`bench list`, `doctor`, `prepare` and `cache`: what they print, for people and for programs."""

from __future__ import annotations

import os
from pathlib import Path

from tests.cli.conftest import TINY_SWEEP
from tests.sweeps.conftest import MODEL, Bench


def test_list_models(bench: Bench) -> None:
    plain = bench("list", "models", "--models", "tiny.toml")
    assert (plain.code, plain.err) == (0, "")
    assert plain.out.startswith("id ")
    assert "smollm2-135m " in plain.out and "\ntiny " in plain.out
    by_id = {row["id"]: row for row in bench("list", "models", "--models", "tiny.toml", "--json").printed}
    assert by_id["tiny"]["context"] == 512 and by_id["tiny"]["hub"] is None
    assert by_id["deepseek-7b"]["int8_bytes"] > 7e9


def test_list_options_tells_the_default_that_holds(bench: Bench) -> None:
    rows = {(row["backend"], row["option"]): row for row in bench("list", "options", "--json").printed}
    dialect = rows["onnx", "dialect"]
    assert dialect["default"] == "contrib" and dialect["by_provider"]["CANNExecutionProvider"] == "opset17"
    assert rows["ascend", "dialect"]["default"] == "opset17" and rows["onnx", "ep.*"]["default"] is None
    assert ("null", "threads") not in rows and "opset21" in bench("list", "options").out


def test_list_workloads(bench: Bench) -> None:
    rows = {row["name"]: row for row in bench("list", "workloads", "--json").printed}
    assert rows["chat"]["prompt_tokens"] == 512 and rows["tg128x4"]["batch"] == 4
    assert bench("run", "--backend", "null", "--model", MODEL, "--workload", ",".join(rows), "--plan").code == 0


def test_list_backends_and_devices(bench: Bench) -> None:
    rows = {row["name"]: row for row in bench("list", "backends", "--json").printed}
    assert set(rows) >= {"null", "onnx"} and rows["null"]["ok"] is True
    assert bench("list", "devices").code == 0


def test_doctor(bench: Bench, tmp_path: Path) -> None:
    ended = bench("doctor")
    said = [line[4:].partition(":")[0] for line in ended.out.splitlines() if line[:2] in ("ok", "!!", "--")]
    for what in ("python", "processor", "memory", "load", "cache", "results", "backend null", "backend onnx"):
        assert what in said
    assert str(tmp_path / "cache") in ended.out and str(tmp_path / "results") in ended.out
    closed = bench("doctor", env={"BENCH_CACHE": "tiny.toml"})
    assert closed.code == 3
    assert "!!  cache: " in closed.out and "not writable" in closed.out and "export BENCH_CACHE" in closed.out


def test_prepare_then_list_verify_and_prune(bench: Bench, tmp_path: Path) -> None:
    first = bench("prepare", "tiny-int8", "tiny-int4", "--models", "tiny.toml")
    assert first.code == 0 and "weights of tiny-int8" in first.err
    int8, int4 = (line.split() for line in first.out.splitlines())
    assert (int8[0], int4[0]) == ("tiny-int8", "tiny-int4")
    assert Path(int8[-1], "model.gguf").is_file() and Path(int8[-1], "reference").is_dir()
    again = bench("prepare", "tiny-int8", "--models", "tiny.toml")
    assert again.out.split() == int8, "the second time it comes from the cache, with the same digest"
    gguf = Path(int8[-1], "model.gguf")
    inode = gguf.stat().st_ino
    assert bench("prepare", "tiny-int8", "--models", "tiny.toml", "--force").out.split() == int8
    assert gguf.stat().st_ino != inode, "--force writes it again"

    listed = bench("cache", "ls")
    assert listed.code == 0 and " MB in " in listed.err
    assert [line.split()[-2] for line in listed.out.splitlines()] == ["artifact", "artifact"]
    verified = bench("cache", "verify")
    assert (verified.code, verified.out) == (0, "") and "0 broken of 2" in verified.err

    os.utime(int4[-1], (0, 0))
    old = bench("cache", "prune", "--older-than", "1d")
    assert [line.split()[-1] for line in old.out.splitlines()] == [Path(int4[-1]).name]
    assert bench("cache", "prune").code == 0
    assert bench("cache", "ls").out == "" and not gguf.exists()


def test_plan_shows_cases_disk_memory_and_minutes(bench: Bench) -> None:
    plan = bench(*TINY_SWEEP[:-1], "tg4,pp32,pp32x4", "--launches", "3", "--plan")
    assert plan.code == 0
    assert "tiny-int8 on onnx: " in plan.out and "disk " in plan.out and "host memory " in plan.out
    assert "9 cases, 6 launches, about " in plan.out and "free: " in plan.out
    assert not plan.store.root.exists()
