"""Steps of `llamacpp` on tiny models: parts of a batch, refusals, rewinding, closing, damaged files."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.llamacpp import LlamaCpp, model, widened
from backends.llamacpp.session import LlamaCppSession
from bench.artifacts.forward import forward
from bench.errors import CaseError
from bench.types import Fidelity, Float32, LoadGroup, Prepared
from tests.llamacpp_models import Models, case, error, ids
from tests.tiny import LLAMA3_SCALING

SAME = 1e-5
"""Two orders of summing up in exact mode differ by less."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("llamacpp"))


def logits(session: LlamaCppSession, tokens: Any, want: Any = "last") -> Float32:
    """Copied logits of one step on an empty cache."""
    session.rewind(0)
    found = session.step(tokens, want)
    kept = np.array(session.logits())
    last = kept[:, -1] if want == "all" else kept
    assert (found == last.argmax(-1)).all()
    return kept


@pytest.mark.parametrize("want", ["last", "all"])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_prompt_in_parts_is_the_prompt(models: Models, batch: int, want: str) -> None:
    """17 tokens of each row: parts of n_batch / rows tokens, the last one shorter."""
    tokens = ids(batch, 17)
    with models.opened(batch=batch, exact=True) as session:
        whole = logits(session, tokens, want)
    assert whole.shape == ((batch, 17, 300) if want == "all" else (batch, 300))
    with models.opened(batch=batch, exact=True, n_batch=5) as session:
        assert session._context and session._context.n_batch == 5
        parts = logits(session, tokens, want)
        assert error(parts, whole) < SAME
        again = session.step(ids(batch, 1, seed=1))
    assert parts.shape == whole.shape and again.shape == (batch,)


def test_logits_of_parts_survive_the_next_step(models: Models) -> None:
    with models.opened(n_batch=5) as session:
        session.step(ids(1, 12), "all")
        held = session.logits()
        kept = held.copy()
        session.step(ids(1, 12, seed=1), "all")
        assert (held == kept).all()


def test_more_rows_than_a_batch_holds_are_refused(models: Models) -> None:
    """llama.cpp would end the process."""
    with pytest.raises(CaseError, match="4 rows are more than n_batch") as caught:
        models.opened(batch=4, n_batch=3).__enter__()
    assert caught.value.remedy == "--set n_batch=4"
    asked = case(models.made().artifact.arch, n_batch=3)
    answer = LlamaCpp().support(replace(asked, workload=replace(asked.workload, batch=4)))
    assert (answer.reason, answer.detail) == ("NEVER", "--set n_batch=3: fewer than the batch has rows")
    with models.opened(batch=4, n_batch=4, n_ubatch=1) as session:
        assert session.step(ids(4, 2)).shape == (4,)


def test_rewinding_forgets_the_rest(models: Models) -> None:
    tokens = ids(2, 12)
    with models.opened(batch=2) as session:
        session.step(tokens[:, :8].copy())
        session.step(tokens[:, 8:].copy())
        expected = np.array(session.logits())
        assert session.rewind(8) and not session.rewind(9)
        session.step(ids(2, 3, seed=5))
        assert session.rewind(8)
        session.step(tokens[:, 8:].copy())
        assert (session.logits() == expected).all()


def test_what_does_not_fit_is_refused_and_the_session_lives_on(models: Models) -> None:
    with models.opened(batch=2) as session:
        with pytest.raises(CaseError, match="no step has been executed"):
            session.logits()
        session.step(ids(2, 120))
        with pytest.raises(CaseError, match=r"2 rows of 9 tokens after 120 do not fit \(the cache holds 2 rows of 128"):
            session.step(ids(2, 9))
        with pytest.raises(CaseError, match="1 rows go on where 2 began"):
            session.step(ids(1, 1))
        assert session.step(ids(2, 8)).shape == (2,)
        session.rewind(0)
        for shape in ((3, 1), (1, 0), (0, 1)):
            with pytest.raises(CaseError, match="do not fit"):
                session.step(np.zeros(shape, np.int32))
        assert session.step(ids(1, 128)).shape == (1,)


def test_a_failed_decode_names_llama_cpps_words(models: Models) -> None:
    with models.opened() as session:
        session.step(ids(1, 4))
        with pytest.raises(CaseError, match=r"llama_decode returned -1 \(.*invalid token") as caught:
            session.step(np.full((1, 1), 10**6, np.int32))
        assert (caught.value.phase, caught.value.where) == ("step", "llama.cpp")


def test_facts_leave_the_sessions_cache_alone(models: Models) -> None:
    with models.opened() as session:
        session.step(ids(1, 20))
        before = session.step(ids(1, 1, seed=1))
        expected = np.array(session.logits())
        session.rewind(20)
        session.facts()
        assert (session.step(ids(1, 1, seed=1)) == before).all()
        assert (session.logits() == expected).all()


def test_closing_twice_does_nothing_and_closed_is_closed(models: Models) -> None:
    with models.opened() as session:
        session.step(ids(1, 3), "all")
        session.close()
        session.close()
        for attempt in (
            lambda: session.step(ids(1, 1)),
            lambda: session.rewind(0),
            session.facts,
            session.memory,
            lambda: session.fed("output_norm.weight"),
        ):
            with pytest.raises(CaseError, match="the session is closed"):
                attempt()


def test_a_context_that_is_refused_leaves_no_model(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(model.Model, "close", lambda self: closed.append(True))
    with pytest.raises(CaseError, match=r"no context for the model \(.*quantized V cache requires flash_attn"):
        models.opened(type_k="q8_0", type_v="q8_0", flash_attn="off").__enter__()
    assert closed == [True]


EXACT = [
    ("llama", {}), ("llama", {"tied": True}), ("llama", {"rope_scaling": LLAMA3_SCALING}),
    ("qwen2", {"tied": True}), ("qwen3", {}),
]  # fmt: skip


@pytest.mark.parametrize("scheme", ["int8", "int4", "fp16", "bf16"])
@pytest.mark.parametrize(("family", "changes"), EXACT)
def test_exact_agrees_with_the_reference(models: Models, family: str, changes: dict[str, Any], scheme: str) -> None:
    """Tied tables are filled in twice; rope factors come from the file where it has some, and are ones elsewhere."""
    arch = {"family": family, **changes}
    tokens = ids(1, 100)
    expected = forward(models.made(scheme, **arch).artifact, tokens[0], ["f32"])["f32"]
    with models.opened(scheme, exact=True, arch=arch) as session:
        assert error(logits(session, tokens, "all")[0], expected) < SAME


def test_a_cut_is_the_reference_of_the_cut(models: Models, tmp_path: Path) -> None:
    """As `bench run` certifies large models: the same file, fewer layers."""
    made = models.made("int4", layers=3)
    cut = made.artifact.cut(2)
    prepared = LlamaCpp().prepare(case(cut.arch, "int4"), cut, tmp_path, lambda done, total: None)
    tokens = ids(1, 32)
    found = {}
    for name, artifact, files in (("cut", cut, prepared), ("whole", made.artifact, made.prepared)):
        exact = LoadGroup(cases=(case(artifact.arch, "int4", "exact"),))
        session = LlamaCpp().open(exact, files)
        found[name] = logits(session, tokens, "all")[0]
        session.close()
        assert error(found[name], forward(artifact, tokens[0], ["f32"])["f32"]) < SAME
    assert error(found["cut"], found["whole"]) > 0.1


def test_a_tensor_that_is_not_there_is_an_error_from_inside_the_callback(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = widened.Metadata.__init__

    def without(self: Any, *arguments: Any) -> None:
        stored(self, *arguments)
        del self.stored["blk.1.ffn_up.weight"]

    monkeypatch.setattr(widened.Metadata, "__init__", without)
    with pytest.raises(CaseError, match=r"model\.gguf: there is no blk\.1\.ffn_up\.weight"):
        models.opened(exact=True).__enter__()
    monkeypatch.undo()
    with models.opened(exact=True) as session:
        assert session.step(ids(1, 2)).shape == (1,)


def test_weights_of_other_types_are_not_widened(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widened, "STORED", {kind: told for kind, told in widened.STORED.items() if kind != 8})
    with pytest.raises(CaseError, match="has ggml's type 8, which cannot be widened"):
        models.opened(exact=True).__enter__()


def test_widening_streams(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows at a time give the same weights as all at once."""
    tokens = ids(1, 8)
    with models.opened("int4", exact=True) as session:
        expected = logits(session, tokens)
    monkeypatch.setattr(widened, "row_ranges", lambda rows, size: ((at, min(at + 7, rows)) for at in range(0, rows, 7)))
    with models.opened("int4", exact=True) as session:
        assert (logits(session, tokens) == expected).all()


def replaced(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def number(data: bytes, key: bytes, value: int) -> bytes:
    """Another value of a metadata key of 32 bits: its name, four bytes of type, the value."""
    return replaced(data, data.index(key) + len(key) + 4, struct.pack("<I", value))


def weights_at(data: bytes) -> int:
    """Where the tensors' data begins: they end the file, the last one a norm."""
    return data.index(b"output_norm.weight") + 200


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "header alone": lambda data: data[:24],
    "metadata cut": lambda data: data[:500],
    "no weights": lambda data: data[: weights_at(data)],
    "half of the weights": lambda data: data[: (weights_at(data) + len(data)) // 2],
    "magic": lambda data: replaced(data, 0, b"GGML"),
    "version": lambda data: replaced(data, 4, struct.pack("<I", 99)),
    "big endian": lambda data: replaced(data, 4, struct.pack(">I", 3)),
    "too many tensors": lambda data: replaced(data, 8, struct.pack("<Q", 2**60)),
    "no tensors": lambda data: replaced(data, 8, struct.pack("<Q", 0)),
    "no architecture": lambda data: data.replace(b"general.architecture", b"general.architectur0"),
    "architecture is no text": lambda data: replaced(  # an array of one byte takes as much room as `llama`
        data, data.index(b"general.architecture") + 20, struct.pack("<IIQB", 9, 0, 1, 7)
    ),
    "unknown architecture": lambda data: replaced(data, data.index(b"general.architecture") + 32, b"lumma"),
    "wider": lambda data: number(data, b"llama.embedding_length", 256),
    "more heads": lambda data: number(data, b"llama.attention.head_count", 8),
    "larger ffn": lambda data: number(data, b"llama.feed_forward_length", 384),
    "other rotation": lambda data: number(data, b"llama.rope.dimension_count", 31),
    "renamed tensor": lambda data: data.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight"),
    "name is no text": lambda data: data.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_\xab\xff.weight"),
    "unknown type": lambda data: replaced(
        data, data.index(b"blk.1.ffn_up.weight") + 19 + 4 + 16, struct.pack("<I", 31)
    ),
}


@pytest.mark.parametrize("fidelity", ["native", "exact"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_a_case_error_with_its_name(
    models: Models, tmp_path: Path, damage: str, fidelity: Fidelity
) -> None:
    """The harness seals files and checks them before; what gets past it must not end the worker."""
    made = models.made()
    (tmp_path / "model.gguf").write_bytes(DAMAGES[damage](made.gguf.read_bytes()))
    damaged = Prepared(path=str(tmp_path), files=("model.gguf",), notes=made.prepared.notes)
    with pytest.raises(CaseError) as caught:
        LlamaCpp().open(LoadGroup(cases=(case(made.artifact.arch, "int8", fidelity),)), damaged)
    assert caught.value.phase == "open" and caught.value.where == str(tmp_path / "model.gguf")
    assert "\n" not in str(caught.value) and (caught.value.cause or caught.value.remedy)


def test_a_file_that_is_gone_is_a_case_error(models: Models, tmp_path: Path) -> None:
    gone = Prepared(path=str(tmp_path), files=("model.gguf",), notes=models.made().prepared.notes)
    for fidelity in ("native", "exact"):
        with pytest.raises(CaseError, match=r"model\.gguf"):
            LlamaCpp().open(LoadGroup(cases=(case(models.made().artifact.arch, "int8", fidelity),)), gone)
