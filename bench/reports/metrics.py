"""The definitions of every rate and latency: from one sample of one record to one number.

A definition that changes its meaning gets a new id. None means that the workload has no such figure or that something
it needs was not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.attest import DecodeTraffic, mbu_ratio
from bench.results.record import Record
from bench.results.schema import Sample, WorkloadRef
from bench.types import Workload


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure: its key in a summary (unit in the name), its id, what it means, and how a sample yields it."""

    key: str
    id: str
    meaning: str
    of: Callable[[Record, Sample], float | None]


def headline(workload: WorkloadRef) -> str:
    """The key of the one rate that a workload is about."""
    if workload.first_id_from_prompt:
        return "decode_tokens_per_s"
    if not workload.new_tokens:
        return "pp_tokens_per_s"
    return "pg_tokens_per_s" if workload.prompt_tokens else "tg_tokens_per_s"


def gaps_s(workload: WorkloadRef, sample: Sample) -> list[float]:
    """Times between one generated id and the next; where no prompt yields an id, the first step's id comes first."""
    return sample.step_s if workload.first_id_from_prompt else sample.step_s[1:]


def _pp(record: Record, sample: Sample) -> float | None:
    workload = record.identity.workload
    if workload.new_tokens and not workload.first_id_from_prompt:
        return None  # llama-bench's pp+tg is one interval: its parts are nobody's headline
    return _rate(workload.batch * workload.prompt_tokens, sample.prefill_s)


def _tg(record: Record, sample: Sample) -> float | None:
    workload = record.identity.workload
    if workload.prompt_tokens or workload.first_id_from_prompt:
        return None
    return _rate(workload.batch * _steps(workload, sample), _decode_s(sample))


def _pg(record: Record, sample: Sample) -> float | None:
    workload = record.identity.workload
    if headline(workload) != "pg_tokens_per_s":
        return None
    tokens = workload.batch * (workload.prompt_tokens + _steps(workload, sample))
    if sample.prefill_s is None:
        return _rate(tokens, sample.total_s)
    return _rate(tokens, sample.prefill_s + _decode_s(sample))


def _decode(record: Record, sample: Sample) -> float | None:
    workload = record.identity.workload
    if not workload.first_id_from_prompt:
        return None
    return _rate(workload.batch * _steps(workload, sample), _decode_s(sample))


def _steps(workload: WorkloadRef, sample: Sample) -> int:
    """Decode steps of a sample: those timed one by one, or all that the workload has where only their sum is known."""
    return len(sample.step_s) if sample.kind == "step" else workload.decode_steps


def _decode_s(sample: Sample) -> float:
    return sum(sample.step_s) if sample.kind == "step" else sample.decode_s or 0.0


def _ttft(record: Record, sample: Sample) -> float | None:
    return sample.prefill_s if record.identity.workload.first_id_from_prompt else None


def _tpot(record: Record, sample: Sample) -> float | None:
    gaps = gaps_s(record.identity.workload, sample)
    return sum(gaps) / len(gaps) if gaps else None


def _mbu(record: Record, sample: Sample) -> float | None:
    facts = record.facts
    if facts is None or facts.resident_weight_bytes is None or facts.embedding_bytes is None:
        return None
    return _share(record, sample, facts.resident_weight_bytes - facts.embedding_bytes)


def _canonical_mbu(record: Record, sample: Sample) -> float | None:
    return _share(record, sample, record.facts.canonical_weight_bytes if record.facts else None)


METRICS = (
    Metric(
        key="pp_tokens_per_s",
        id="pp.v1",
        meaning="batch × prompt tokens / time of the prefill, chunked as the case says",
        of=_pp,
    ),
    Metric(
        key="tg_tokens_per_s",
        id="tg.v1",
        meaning="batch × N / time of N decode steps from an empty cache or from the depth, as llama-bench counts",
        of=_tg,
    ),
    Metric(
        key="pg_tokens_per_s",
        id="pg.v1",
        meaning="batch × (prompt tokens + N) / time of the prefill and N decode steps, as llama-bench counts",
        of=_pg,
    ),
    Metric(
        key="decode_tokens_per_s",
        id="decode.v1",
        meaning="batch × (N − 1) / (t_last − t_first) of the N ids generated after a prompt",
        of=_decode,
    ),
    Metric(
        key="ttft_s",
        id="ttft.v1",
        meaning="first generated id on the host − start of the first step; only where a prompt yields that id",
        of=_ttft,
    ),
    Metric(
        key="tpot_s",
        id="tpot.v1",
        meaning="(t_last − t_first) / (N − 1) of the N generated ids",
        of=_tpot,
    ),
    Metric(
        key="mbu_ratio",
        id="mbu.v1",
        meaning="bytes that a decode step reads, as the runtime holds them (weights without a table that is only "
        "looked rows up in, KV at its mean length) / mean step time / probed read bandwidth; none below 4 × the "
        "last-level cache",
        of=_mbu,
    ),
    Metric(
        key="canonical_mbu_ratio",
        id="canonical-mbu.v1",
        meaning="the same with weights counted at the scheme's nominal width, so that runtimes compare",
        of=_canonical_mbu,
    ),
)

PERCENTILE_FLOORS = {50: 11, 90: 64, 95: 130, 99: 662}
"""Gaps needed before a percentile of `itl_s` (id itl.v1) is given: fewer do not determine it."""


def _rate(tokens: int, time_s: float | None) -> float | None:
    return tokens / time_s if tokens and time_s else None


def _share(record: Record, sample: Sample, weight_bytes: int | None) -> float | None:
    """Share of the probed bandwidth, by the one definition that `bench.attest` refuses impossible records with."""
    facts, ceiling, ref = record.facts, record.ceiling, record.identity.workload
    if facts is None or facts.kv_bytes_per_token is None or not weight_bytes:
        return None
    if ceiling is None or ceiling.read_bytes_per_s is None or not sum(sample.step_s):
        return None
    workload = Workload(
        name=ref.name,
        prompt_tokens=ref.prompt_tokens,
        new_tokens=ref.new_tokens,
        depth=ref.depth,
        batch=ref.batch,
        first_id_from_prompt=ref.first_id_from_prompt,
    )
    traffic = DecodeTraffic(weight_bytes=weight_bytes, kv_bytes_per_token=facts.kv_bytes_per_token)
    mean_step_s = sum(sample.step_s) / len(sample.step_s)
    return mbu_ratio(traffic, workload, mean_step_s, ceiling.read_bytes_per_s, ceiling.llc_bytes)
