"""The nouns that worker, adapters and parent share: frozen dataclasses of the standard library and numpy.

None means "not measured" or "not known"; never 0, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]

Family = Literal["llama", "qwen2", "qwen3"]
SYNTHETIC = "synthetic"
"""Weights that are made here, from a seed."""
Fidelity = Literal["native", "exact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """Llama 3's frequency scaling (`rope_type: llama3` in the published configurations)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arch:
    """Architecture numbers of a dense decoder: RMSNorm, SwiGLU, rotary positions, grouped KV heads.

    llama has neither biases nor QK-norm, qwen2 has biases on Q, K and V, qwen3 normalizes each head of Q and K.
    """

    family: Family
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int
    rope_theta: float
    norm_eps: float
    tied: bool
    rope_scaling: RopeScaling | None = None

    @classmethod
    def from_json(cls, numbers: Mapping[str, Any]) -> Arch:
        """The Arch whose `dataclasses.asdict` went through JSON; TypeError for unknown or missing names."""
        scaling = numbers.get("rope_scaling")
        return cls(**{**numbers, "rope_scaling": RopeScaling(**scaling) if scaling else None})

    @property
    def qkv_bias(self) -> bool:
        return self.family == "qwen2"

    @property
    def qk_norm(self) -> bool:
        return self.family == "qwen3"

    @property
    def q_rows(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_rows(self) -> int:
        return self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is fed: `depth` tokens untimed, then `prompt_tokens` in steps of at most `chunk`, then `new_tokens`.

    `name` follows llama-bench: pp512, tg128, pp512+tg128, with `@dDEPTH` and `xBATCH` appended.
    `first_id_from_prompt` is True for IN/OUT workloads (chat, rag, ...), where the prompt's step yields the first of
    the new tokens and new_tokens - 1 decode steps follow; False for llama-bench's, where new_tokens steps follow.
    """

    name: str
    prompt_tokens: int
    new_tokens: int
    depth: int = 0
    batch: int = 1
    chunk: int = 512
    first_id_from_prompt: bool = False

    @property
    def decode_steps(self) -> int:
        return max(0, self.new_tokens - 1) if self.first_id_from_prompt else self.new_tokens

    @property
    def most_at_once(self) -> int:
        """The most tokens that a step feeds to one row."""
        return min(self.chunk, max(self.depth, self.prompt_tokens, 1))

    @property
    def positions(self) -> int:
        """Positions of the KV cache that one repetition fills."""
        return self.depth + self.prompt_tokens + self.decode_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One point of a sweep. `options` are the adapter's own (`--set`), complete with their defaults.

    `weights` is SYNTHETIC or the absolute path of a file; of a file, `arch` is what its metadata say, and its family
    may be one that nobody here can compute.
    """

    model: str
    scheme: str
    weights: str
    arch: Arch
    backend: str
    device: str | None
    provider: str | None
    fidelity: Fidelity
    workload: Workload
    kv_capacity: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def from_file(self) -> bool:
        """The weights are somebody else's: there is no reference for them."""
        return self.weights != SYNTHETIC

    @property
    def label(self) -> str:
        """For people: `smollm2-135m-int8 onnx pp512`."""
        return f"{self.model}-{self.scheme} {self.backend} {self.workload.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadGroup:
    """Cases that one launch executes on one loaded model: they differ in their workload's lengths only."""

    cases: tuple[Case, ...]

    @property
    def first(self) -> Case:
        return self.cases[0]

    @property
    def batch(self) -> int:
        return self.first.workload.batch

    @property
    def kv_capacity(self) -> int:
        return self.first.kv_capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What an adapter derived from an artifact: a folder, and notes that `open` needs to read it again.

    `files` are names relative to `path`; the harness seals each with its size and digest and checks the seal before
    every open. `notes` must survive JSON.
    """

    path: str
    files: tuple[str, ...]
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """Rows of token ids and what the float32 reference makes of them: what an exported model is checked with.

    `ids` [rows, positions], `logits` [rows, positions, vocab]; `keys` (rotated) and `values` [layers, rows, positions,
    kv_heads, head_dim] as attention reads them. `centred2` is ‖logits − their mean‖², `delta2` by precision class the
    ‖error‖² that it must cause, both [rows, positions].
    """

    ids: Int32
    logits: Float32
    keys: Float32
    values: Float32
    centred2: npt.NDArray[np.float64]
    delta2: Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device as its runtime names it; `uuid`, and `pci` (`0000:03:00.0`), None where the runtime cannot tell."""

    kind: str
    name: str
    index: int = 0
    uuid: str | None = None
    pci: str | None = None


def pci_address(domain: int, bus: int, device: int, function: int = 0) -> str:
    """As the kernel writes it: `0000:03:00.0`."""
    return f"{domain:04x}:{bus:02x}:{device:02x}.{function:x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """Whether a backend can execute here: versions and devices, or the reason and the remedy (a command).

    `providers` can be asked for; `unusable` are installed and cannot, each with the reason.
    """

    versions: dict[str, str] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    providers: tuple[str, ...] = ()
    unusable: dict[str, str] = field(default_factory=dict)
    reason: str | None = None
    remedy: str | None = None

    @property
    def ok(self) -> bool:
        return self.reason is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What must be installed for a backend: pip requirements, and notes on drivers a wheel cannot bring.

    What is compiled on the spot says how: `build` are variables for its compiler (CMAKE_ARGS), `tools` the executables
    that must be on PATH first, `minutes` about how long that takes on two cores (None: wheels are only downloaded),
    `native` that the result fits only processors like this one. `download_bytes` and `disk_bytes` are about what the
    network and the disk must give; None: not known.
    """

    packages: tuple[str, ...]
    index_url: str | None = None
    notes: str | None = None
    build: dict[str, str] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    minutes: float | None = None
    download_bytes: int | None = None
    disk_bytes: int | None = None
    native: bool = False


NoReason = Literal["NOT_WIRED", "NOT_UPSTREAM", "NEVER", "MEMORY"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """Yes, or no with the reason: we have not built it, the runtime lacks it, it cannot exist, it does not fit."""

    ok: bool
    reason: NoReason | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One `--set key=value` of an adapter. `prepare` is True when its value changes the prepared files.

    `default` None with kind int or str means "the runtime's own choice"; `by_provider` has what stands in its place for
    some execution providers. `minimum` is the least number that is taken. `path`: the value is made an absolute path.
    `brings_provider`: with a value there may be an execution provider that `probe` cannot see. One that is called
    `NAME.*` stands for every option that begins with `NAME.`: only those that are given exist.
    """

    kind: type[int] | type[float] | type[str] | type[bool]
    default: int | float | str | bool | None
    help: str
    prepare: bool = False
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    by_provider: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    path: bool = False
    brings_provider: bool = False

    def default_for(self, provider: str | None) -> int | float | str | bool | None:
        """Its value where none is given."""
        return self.by_provider.get(provider or "", self.default)


ANY = ".*"
"""How the name of an option ends that stands for all names that begin so."""


def declared(options: Mapping[str, Option], name: str) -> Option | None:
    """The option of an adapter that `name` is one of; None for a name that it does not take."""
    if not name.endswith(ANY) and name in options:
        return options[name]
    prefix, dot, rest = name.partition(".")
    return options.get(prefix + ANY) if dot and rest else None
