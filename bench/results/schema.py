"""The parts of a record, schema 1.4: the shape of what a launch leaves on disk.

Every value is in the unit that its name ends in. None means "not measured" or "not known"; never 0, never a guess.
Fields that this version does not know are ignored, not refused: an addition raises the minor version and carries a
default, a changed meaning raises the major version. docs/records.md describes every field.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

Status = Literal["ok", "unproven", "invalid", "unsupported", "failed"]
Origin = Literal["measured", "imported"]

Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Bytes = Annotated[int, Meta(ge=0)]


class Reason(Struct, frozen=True, kw_only=True):
    """Why a record is not `ok`: `what` for people, `code` and `phase` for sorting, `remedy` the next command."""

    what: str
    code: str | None = None
    phase: str | None = None
    cause: str | None = None
    remedy: str | None = None


class Weights(Struct, frozen=True, kw_only=True):
    """Where the weights come from and the digest of the canonical file."""

    source: str
    digest: str | None = None


class DeviceRef(Struct, frozen=True, kw_only=True):
    """A device as its runtime names it; `pci` is its address, `0000:03:00.0`."""

    kind: str
    name: str
    uuid: str | None = None
    index: int = 0
    pci: str | None = None


class WorkloadRef(Struct, frozen=True, kw_only=True):
    """What was fed; the fields of `bench.types.Workload`, and `load` for servers."""

    name: str
    prompt_tokens: Count
    new_tokens: Count
    depth: Count = 0
    batch: Annotated[int, Meta(ge=1)] = 1
    chunk: Count | None = None
    first_id_from_prompt: bool = False
    load: dict[str, Any] | None = None

    @property
    def decode_steps(self) -> int:
        return max(0, self.new_tokens - 1) if self.first_id_from_prompt else self.new_tokens


class Identity(Struct, frozen=True, kw_only=True):
    """What makes two records comparable: all of it is hashed into `series_key`."""

    model: str
    scheme: str
    weights: Weights
    backend: str
    workload: WorkloadRef
    provider: str | None = None
    fidelity: str = "native"
    host_id: str | None = None
    devices: list[DeviceRef] = []
    parallel: dict[str, int] = {}
    placement: dict[str, str | None] = {}
    kv_capacity: int | None = None
    options: dict[str, Any] = {}
    method: int = 1
    definition: str | None = None


class Code(Struct, frozen=True, kw_only=True):
    """The version of this project that measured."""

    commit: str | None = None
    dirty: bool | None = None


class Covariates(Struct, frozen=True, kw_only=True):
    """What may explain a change but does not start a new series."""

    runtime: dict[str, str] = {}
    builder: int | None = None
    driver: str | None = None
    firmware: str | None = None
    kernel: str | None = None
    governor: str | None = None
    power_cap_w: float | None = None
    code: Code | None = None
    machine: dict[str, Any] = {}


class Interpreter(Struct, frozen=True, kw_only=True):
    """The Python that executed the worker, who chose it, and the versions of everything it had imported at the end.

    `memory_read`: `outside` by the parent all the time, or `inside` by the worker between two pieces of work.
    """

    origin: str
    python: str
    prefix: list[str] = []
    version: str | None = None
    packages: dict[str, str] = {}
    memory_read: str | None = None


class Info(Struct, frozen=True, kw_only=True):
    """Facts for people; `sweep_id` and `case_key` tie a record to the journal that planned it.

    `ab_id` and `ab_side` (`a`, `b`) are of two sweeps that were executed by turns; `launch_index` is the pair then.
    `allow_fallback` is the share of the matrix products that was allowed to execute elsewhere than asked.
    """

    started_at_utc: str | None = None
    host: dict[str, Any] = {}
    command: str | None = None
    launch_index: int | None = None
    seed: int | None = None
    repetitions: int | None = None
    budget_s: float | None = None
    sweep_id: str | None = None
    case_key: str | None = None
    ab_id: str | None = None
    ab_side: str | None = None
    allow_fallback: float | None = None
    interpreter: Interpreter | None = None
    redacted: bool = False


class Phase(Struct, frozen=True, kw_only=True):
    """Effective precision of one phase."""

    activations: str
    compute: str
    kernels: dict[str, str] = {}
    attention_sums: str | None = None
    product_results: str | None = None


class PlacedOn(Struct, frozen=True, kw_only=True):
    """What the runtime put on one device."""

    device: str
    matmul_share: float | None = None
    operations: dict[str, int] = {}


class Claim(Struct, frozen=True, kw_only=True):
    """One claim and where it was read."""

    source: str
    claim: str


class Facts(Struct, frozen=True, kw_only=True):
    """What the session really did, read back from the runtime.

    `elsewhere_share` is the share of the matrix products that was not executed on `asked_placement`; 0 where only other
    operations were not, None where all that computes was there.
    """

    weights: str
    prefill: Phase
    decode: Phase
    path: Phase | None = None
    kv_cache: str
    asked_placement: str | None = None
    placement: list[PlacedOn] = []
    elsewhere_share: Annotated[float, Meta(ge=0, le=1)] | None = None
    threads: int | None = None
    isa: str | None = None
    resident_weight_bytes: Bytes | None = None
    embedding_bytes: Bytes | None = None
    kv_bytes_per_token: Bytes | None = None
    canonical_weight_bytes: Bytes | None = None
    evidence: list[Claim] = []


class Gate(Struct, frozen=True, kw_only=True):
    """The proof that this was the model: measured error against the error its precision predicts."""

    verdict: str
    class_: str | None = field(default=None, name="class")
    error: float | None = None
    predicted: float | None = None
    worst_error: float | None = None
    alignment: float | None = None
    kl_mean: float | None = None
    top1_ratio: float | None = None
    certificate: dict[str, Any] | None = None
    shapes: list[dict[str, Any]] = []


class Ceiling(Struct, frozen=True, kw_only=True):
    """Read bandwidth of the same device, probed in the same launch; `spread` is (best - worst) / best."""

    read_bytes_per_s: Annotated[float, Meta(gt=0)] | None = None
    spread: float | None = None
    llc_bytes: Bytes | None = None


class Load(Struct, frozen=True, kw_only=True):
    """What it took to get ready, each apart; `page_cache` is "warm" or "cold"."""

    prepare_s: Seconds | None = None
    load_s: Seconds | None = None
    page_cache: str | None = None
    first_step_s: Seconds | None = None


class Sample(Struct, frozen=True, kw_only=True):
    """The timings of one repetition: the whole prefill, and each decode step.

    `kind` "phase" where single steps are not known: `decode_s` is all of them together, and `total_s` a prefill with
    the decode steps after it where even these two are not apart. "step" has neither.
    """

    kind: str = "step"
    prefill_s: Seconds | None = None
    step_s: list[Seconds] = []
    decode_s: Seconds | None = None
    total_s: Seconds | None = None


class Memory(Struct, frozen=True, kw_only=True):
    """Memory of one device, each figure by its own name; of the host anonymous and file-backed pages apart.

    `loaded` is when the model had been loaded, `prefilled` right after a timed prefill, the highest of all samples.
    """

    device: str
    weights_bytes: Bytes | None = None
    kv_bytes: Bytes | None = None
    allocator_peak_bytes: Bytes | None = None
    device_delta_bytes: int | None = None
    anon_loaded_bytes: Bytes | None = None
    file_loaded_bytes: Bytes | None = None
    anon_prefilled_bytes: Bytes | None = None
    file_prefilled_bytes: Bytes | None = None
    anon_peak_bytes: Bytes | None = None
    file_peak_bytes: Bytes | None = None


class Source(Struct, frozen=True, kw_only=True):
    """Where an imported record comes from, and everything that stood there.

    `fields` are the source's own names and values. `row_digest` tells a row that is imported again. The two rates are
    what the source states where it keeps no samples, else None.
    """

    format: str
    generation: str
    notation: str
    file: str | None = None
    line: Count | None = None
    row_digest: str
    fields: dict[str, Any] = {}
    mean_tokens_per_s: float | None = None
    sd_tokens_per_s: float | None = None
