"""Redaction: nothing that tells whose machine it was, and everything else untouched."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bench.results.record import decode, encode
from bench.results.redact import redact, redact_text, secrets_of
from bench.results.schema import Claim, Covariates, DeviceRef, Info, Interpreter, Reason, Weights
from tests.records import FACTS, identity, record

ROOT = Path(__file__).parents[2]
REVEALING = record(
    status="failed",
    reason=Reason(what="no /home/alice/models/x.gguf on lab-gpu-07", cause="alice has no rights"),
    who=identity(
        weights=Weights(source="/home/alice/models/x.gguf"),
        devices=[DeviceRef(kind="gpu", name="A GPU", uuid="GPU-1234-serial")],
    ),
    covariates=Covariates(runtime={"onnxruntime": "1.31.1"}, driver="7.1 built by alice"),
    info=Info(
        host={
            "hostname": "lab-gpu-07",
            "user": "alice",
            "board": {"serial_number": "SN-0042", "product": "X13"},
            "env": {"PATH": "/home/alice/bin", "SECRET": "s3cr3t"},
            "cpu": "A CPU, chip 3",
        },
        interpreter=Interpreter(origin="--python", python="/opt/lab-seven/bin/python", prefix=["/srv/x/enter", "-v"]),
        command="HF_TOKEN=hf_abcdefghijklmnop bench run --weights /home/alice/m.gguf --results /root/r --set threads=2 "
        "--models=/data/lab-seven/a b.toml",
    ),
    facts=type(FACTS)(
        weights="int8",
        prefill=FACTS.prefill,
        decode=FACTS.decode,
        kv_cache="f32",
        evidence=[Claim(source="log", claim="SN-0042 opened by alice@lab-gpu-07")],
    ),
    warnings=["lab-gpu-07 was busy"],
)


def test_nothing_revealing_is_left() -> None:
    text = encode(redact(REVEALING)).decode()
    for secret in ("lab-seven", "alice", "lab-gpu-07", "SN-0042", "s3cr3t", "hf_abc", "GPU-1234", "/root"):
        assert secret not in text


def test_the_rest_is_untouched() -> None:
    clean = redact(REVEALING)
    assert (clean.record_id, clean.series_key, clean.samples) == (
        REVEALING.record_id,
        REVEALING.series_key,
        REVEALING.samples,
    )
    assert clean.info.redacted and not REVEALING.info.redacted
    assert clean.info.host == {"board": {"product": "X13"}, "cpu": "A CPU, chip 3"}
    assert clean.info.command == (
        "HF_TOKEN=[redacted] bench run --weights ~/m.gguf --results ~/r --set threads=2 --models=…/a b.toml"
    )
    executed = clean.info.interpreter
    assert executed is not None and (executed.python, executed.prefix) == ("…/python", ["…/enter", "-v"])
    assert clean.identity.weights.source == "~/models/x.gguf"
    assert clean.identity.devices == [DeviceRef(kind="gpu", name="A GPU")]
    assert clean.covariates.runtime == {"onnxruntime": "1.31.1"}
    assert clean.reason is not None and clean.reason.what == "no ~/models/x.gguf on [redacted]"


def test_an_innocent_record_only_gains_the_mark_and_loses_uuids() -> None:
    before, after = record().raw(), redact(record()).raw()
    assert after["info"].pop("redacted") is True and before["info"].pop("redacted") is False
    assert before["identity"]["devices"][0].pop("uuid") and "uuid" not in after["identity"]["devices"][0]
    for volatile in ("record_id", "launch_id"):
        before.pop(volatile), after.pop(volatile)
    assert after == before


def test_twice_is_the_same_as_once() -> None:
    once = redact(REVEALING)
    assert json.loads(encode(redact(once))) == json.loads(encode(once))


def test_a_user_named_like_a_backend_does_not_rename_it() -> None:
    odd = record(info=Info(host={"user": "onnx"}, command="bench run --backend onnx"))
    assert redact(odd).identity.backend == "onnx"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/home/bob/x and /Users/bob/y", "~/x and ~/y"),
        (r"C:\Users\bob\x", r"~\x"),
        ("/root/.cache but /opt/root/x and /rooted", "~/.cache but /opt/root/x and /rooted"),
        ("--token=abc --api-key xyz", "--token=[redacted] --api-key [redacted]"),
        ("OMP_NUM_THREADS=2 python", "OMP_NUM_THREADS=[redacted] python"),
        ("--set threads=2 on root", "--set threads=2 on root"),
        ("bob ran bobsled on bob-pc", "[redacted] ran bobsled on [redacted]-pc"),
    ],
)
def test_text_of_a_log(text: str, clean: str) -> None:
    assert redact_text(text, frozenset({"bob"})) == clean


def test_secrets_are_what_is_named_so_and_long_enough() -> None:
    few = record(info=Info(host={"user": "root", "hostname": "pc", "node": "lab-3"}))
    assert secrets_of(few) == {"lab-3"}


def test_what_is_committed_is_redacted_and_nothing_else_is_added() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")

    def git(*words: str) -> list[str]:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    committed = [ROOT / name for name in git("ls-files", "results/launches")]
    assert committed and not git("ls-files", "results/sweeps")
    for path in committed:
        assert path.name.startswith("record-"), "a log or events are not redacted"
        one = decode(path.read_bytes(), path)
        assert one.info.redacted and json.loads(encode(redact(one))) == json.loads(path.read_bytes())
    mine = ["results/launches/2026/11/x/record-y.json", "results/sweeps/x.jsonl"]
    assert git("check-ignore", *mine) == mine
