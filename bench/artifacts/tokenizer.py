"""A byte-level BPE vocabulary of any size: real enough for every reader of GGUF, made of nothing but an alphabet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

NORMAL, CONTROL = 1, 3  # gguf's token types


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """`tokens`, `types` and the ids have the model's vocabulary size; `merges` are "left right", best first."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    bos_id: int
    eos_id: int


def build_vocabulary(size: int) -> Vocabulary:
    """Exactly `size` tokens: the 256 bytes, then pairs and triples of them each with its merge, then two markers."""
    special = ["<|begin|>", "<|end|>"][: max(0, size - 1)]
    alphabet = _byte_alphabet()
    tokens = alphabet[: size - len(special)]
    pairs = list(islice(_merges(alphabet), size - len(tokens) - len(special)))
    tokens = tokens + [left + right for left, right in pairs] + special
    return Vocabulary(
        tokens=tokens,
        types=[NORMAL] * (size - len(special)) + [CONTROL] * len(special),
        merges=[f"{left} {right}" for left, right in pairs],
        bos_id=max(0, size - 2),
        eos_id=size - 1,
    )


def _byte_alphabet() -> list[str]:
    """GPT-2's printable character for each byte: itself where printable, else the next one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _merges(alphabet: list[str]) -> Iterator[tuple[str, str]]:
    pairs = [(left, right) for left in alphabet for right in alphabet]
    yield from pairs
    yield from ((left + right, third) for left, right in pairs for third in alphabet)
