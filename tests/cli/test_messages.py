"""Mistakes on the command line and in input files: one clear line, exit code 2, nothing executed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import NULL_SWEEP, TINY, TINY_SWEEP, refused
from tests.sweeps.conftest import Bench

SMOLLM2 = ("run", "--backend", "null", "--model", "smollm2-135m-int8")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run",), ("--backend: is missing", "bench list backends")),
        (("run", "--backend", "null"), ("--model: is missing", "bench list models")),
        (("run", "--backend", ",", "--model", "x-int8"), ("--backend: is missing",)),
        (("run", "--backend", "onxx", "--model", "tiny-int8"), ("backend 'onxx'", "nearest: onnx", "list backends")),
        (("run", "--backend", "a:b c", "--model", "tiny-int8"), ("names no adapter", "package.module:Class")),
        (("run", "--backend", "json:Nix", "--model", "tiny-int8"), ("module json has no 'Nix'",)),
        (
            ("run", "--backend", "null", "--model", "smollm2-135-int8"),
            ("unknown model 'smollm2-135-int8'", "nearest: smollm2-135m-int8", "bench list models"),
        ),
        (("run", "--backend", "null", "--model", "zzzzz-int8"), ("known: deepseek-1.5b-int8",)),
        (("run", "--backend", "null", "--model", "smollm2-135m"), ("no scheme", "write smollm2-135m-int8")),
        (("run", "--backend", "null", "--model", "smollm2-135m-int9"), ("unknown scheme 'int9'", "nearest: int8")),
        ((*SMOLLM2, "--workload", "pp512z"), ("unknown workload 'pp512z'", "nearest: pp512")),
        ((*SMOLLM2, "--workload", "quark"), ("unknown workload 'quark'", "write one like pp512, tg128")),
        ((*SMOLLM2, "--workload", "tg8x0"), ("workload 'tg8x0'", "batch 0", "write tg8 or tg8x4")),
        ((*SMOLLM2, "--workload", "pp0"), ("0 tokens", "at least 1")),
        (
            (*SMOLLM2, "--workload", "pp9000"),
            ("smollm2-135m has a context of 8192", "pp9000 needs 9000", "shorter workload"),
        ),
        ((*SMOLLM2, "--workload", "pp512@d8000"), ("context of 8192", "needs 8512")),
        ((*SMOLLM2, "--weights", "hub"), ("--weights: hub is no file", "give synthetic, or the path of a GGUF file")),
        ((*SMOLLM2, "--weights", "hub:a/b"), ("--weights: hub:a/b is not wired", "give synthetic")),
        ((*SMOLLM2, "--weights", "/"), ("--weights: / is not wired", "give synthetic")),
        ((*SMOLLM2, "--weights", "/etc/passwd"), ("/etc/passwd, byte 4: is no GGUF", "letters GGUF")),
        ((*SMOLLM2, "--provider", "CUDAExecutionProvider"), ("--provider", "null has no execution providers")),
        ((*SMOLLM2, "--set", "x"), ("--set: 'x' is not KEY=VALUE", "--set threads=4")),
        ((*SMOLLM2, "--set", "x=1"), ("backend null: unknown option 'x'", "takes no options")),
        (
            (*TINY_SWEEP, "--set", "thread=1"),
            ("unknown option 'thread'", "nearest: threads", "it takes allow_spinning (", "graph_optimization ("),
        ),
        ((*TINY_SWEEP, "--set", "threads=many"), ("option threads: 'many' is not a whole number",)),
        ((*TINY_SWEEP, "--set", "threads=0"), ("option threads: 0 is too few", "give at least 1")),
        ((*TINY_SWEEP, "--set", "graph_optimization=most"), ("'most' is no choice", "choices: ")),
        ((*SMOLLM2, "--timeout", "soon"), ("--timeout: 'soon' is no duration", "90s, 10m or 1.5h")),
        ((*SMOLLM2, "--budget", "-1"), ("--budget: '-1' is no duration",)),
        ((*SMOLLM2, "--allow-fallback", "0"), ("--allow-fallback: '0' is no share between 0 and 1; write 5% or 0.05",)),
        ((*SMOLLM2, "--allow-fallback", "1"), ("--allow-fallback: '1' is no share",)),
        ((*SMOLLM2, "--allow-fallback", "100%"), ("'100%' is no share",)),
        ((*SMOLLM2, "--allow-fallback", "-5%"), ("'-5%' is no share",)),
        ((*SMOLLM2, "--allow-fallback", "nan"), ("'nan' is no share",)),
        ((*SMOLLM2, "--allow-fallback", "5%%"), ("'5%%' is no share",)),
        ((*SMOLLM2, "--allow-fallback", ""), ("'' is no share",)),
        (
            ("ab", "--a", "null", "--b", "null", "--model", "smollm2-135m-int8", "--allow-fallback", "5 per cent"),
            ("--allow-fallback: '5 per cent' is no share", "leave it out to allow none"),
        ),
        ((*SMOLLM2, "--launches", "0"), ("--launches: 0 is too few",)),
        ((*SMOLLM2, "--repetitions", "0"), ("--repetitions: 0 is too few",)),
        ((*SMOLLM2, "--repetitions", "five"), ("--repetitions", "'five'", "bench run --help")),
        ((*SMOLLM2, "--seed", "-1"), ("--seed: -1 is negative",)),
        ((*SMOLLM2, "--chunk", "0"), ("a chunk of 0 tokens",)),
        ((*SMOLLM2, "--fidelity", "exakt"), ("'exakt'", "'native', 'exact'")),
        ((*SMOLLM2, "--launch", "3"), ("run: No such option '--launch'", "--launches", "bench run --help")),
        ((*SMOLLM2, "spare"), ("unexpected extra argument (spare)",)),
        ((*NULL_SWEEP, "--resume"), ("nothing to resume", "leave --resume out")),
        (("tabel",), ("unknown command 'tabel'", "nearest: table", "bench --help")),
        (("list", "modells"), ("'modells'", "'models', 'backends', 'options', 'workloads', 'devices'")),
        (("prepare",), ("MODEL-SCHEME", "bench prepare --help")),
        (("prepare", "tiny-int9", "--models", "tiny.toml"), ("unknown scheme 'int9'", "nearest: int8")),
        (("cache", "verfy"), ("No such command 'verfy'", "bench cache --help")),
        (("cache", "prune", "--older-than", "x"), ("--older-than: 'x' is no duration", "12h or 7d")),
        (("table", "--format", "xml"), ("'xml'", "'markdown', 'csv', 'html', 'json'")),
        (("table", "--status", "okay"), ("unknown status 'okay'", "nearest: ok")),
        (("backend-check", "onix"), ("unknown backend 'onix'", "nearest: onnx")),
        (("show",), ("RECORD", "bench show --help")),
        (("show", "01"), ("not a record id: '01'", "4 or more characters", "bench table")),
        (("show", "no-uuid-at-all"), ("not a record id: 'no-uuid-at-all'", "bench table")),
        (("show", "../../../../../../../../../../etc/passwd"), ("not a record id",)),
        (("show", "0193b3f2-6c1a-4d40-9a5e-2f8c01d4e6b7"), ("not a record id", "looks like 0193b3f2")),
        (("show", "0193b3f2"), ("no record 0193b3f2", "results", "bench table")),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(bench: Bench, words: tuple[str, ...], says: tuple[str, ...]) -> None:
    ended = bench(*words)
    refused(ended, 2, *says)
    assert not ended.store.root.exists(), "nothing is executed or written"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TINY.replace("layers = 2", "layers ="), (":4: malformed TOML", "correct that line")),
        (TINY.replace("layers = 2", "layers = 0"), (":4: [tiny] layers: ", ">= 1")),
        (TINY.replace("layers = 2", 'layers = "two"'), (":4: [tiny] layers: ", "Expected `int`, got `str`")),
        (TINY.replace("layers", "layer"), (":4: [tiny] layer: unknown key 'layer'", "nearest: layers")),
        (TINY.replace("layers = 2\n", ""), (":2: [tiny]", "missing required field `layers`")),
        (TINY.replace("hidden = 96", "hidden = 100"), (":5: [tiny] hidden: ", "no multiple of 32")),
        (TINY.replace('"llama"', '"lama"'), (":3: [tiny] family: ", "lama")),
        ("tiny = 1\n", ("[tiny]: a model is a table",)),
        (TINY.replace("[tiny]", "[tiny.v2]"), ("[tiny]", 'write ["tiny.v2"] in quotes')),
        ("\x00", ("malformed TOML",)),
    ],
    ids=["syntax", "range", "type", "key", "missing", "group", "choice", "table", "dot", "binary"],
)
def test_a_models_file_that_is_wrong_names_file_line_and_key(
    bench: Bench, tmp_path: Path, text: str, says: tuple[str, ...]
) -> None:
    (tmp_path / "wrong.toml").write_text(text)
    refused(bench("list", "models", "--models", "wrong.toml"), 2, "wrong.toml", *says)


def test_a_models_file_that_cannot_be_read(bench: Bench, tmp_path: Path) -> None:
    refused(bench("list", "models", "--models", "none.toml"), 2, "none.toml: no such file", "--models")
    refused(bench("list", "models", "--models", "."), 2, "cannot be read: Is a directory")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    refused(bench("list", "models", "--models", "latin.toml"), 2, "latin.toml", "not UTF-8")


@pytest.mark.parametrize("words", [(), ("cache",)])
def test_no_arguments_show_the_help(bench: Bench, words: tuple[str, ...]) -> None:
    ended = bench(*words)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("Usage: bench") and "Commands:" in ended.err


@pytest.mark.parametrize(
    "words",
    ["", "run", "prepare", "cache", "cache ls", "cache prune", "cache verify", "list", "doctor", "show", "table",
     "backend-check"],
)  # fmt: skip
def test_help_fits_80_columns(bench: Bench, words: str) -> None:
    ended = bench(*words.split(), "--help")
    assert (ended.code, ended.err) == (0, "")
    assert max(map(len, ended.out.splitlines())) <= 80


def test_nothing_of_this_is_an_error(bench: Bench) -> None:
    assert bench("--version").out.startswith("bench, version ")
    assert bench("run", "-h").code == 0
