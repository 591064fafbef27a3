"""From what was asked and what a worker said to records: statuses, reasons and the fields of the schema."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from statistics import fmean, median

import msgspec

from bench import attest, conditions, metering
from bench.errors import BenchError, CaseError, InvalidMeasurement, PrerequisiteError
from bench.facts import SessionFacts
from bench.launch import Heard, Launch
from bench.results import schema
from bench.results.record import Record, new_record
from bench.situation import Situation
from bench.spec import definition_hash
from bench.types import Case, Support

METHOD = 1
"""Version of how things are measured: part of the identity, so that a change starts new series."""

_NO_REFERENCE = "there is no reference to prove it against"
_UNPROVABLE = "weights of others: nobody here can compute their reference"
NOISY_SPREAD = 0.25

_BITS = {"int8": 8.0, "int4": 4.0, "fp16": 16.0, "bf16": 16.0}
_TABLE_BITS = {"int4": 8.0}
"""Embedding and lm_head of int4 models are int8."""


def now_utc() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")


def case_record(case: Case, index: int, case_key: str, launch: Launch, situation: Situation) -> Record:
    """The record of one executed case: ok, unproven, invalid or failed, decided here and nowhere else."""
    heard, found, energy = launch.heard, conditions.of_case(index, launch), metering.energy(index, launch)
    status, reason = _status(case, index, launch)
    return new_record(
        launch_id=launch.launch_id,
        status=status,
        reason=reason,
        identity=_identity(case, launch, situation),
        covariates=_covariates(launch, situation),
        info=_info(case_key, launch, situation),
        facts=_facts(case, heard.facts),
        gate=_gate(index, launch),
        ceiling=_ceiling(index, heard),
        load=schema.Load(
            prepare_s=launch.prepare_s,
            load_s=heard.load_s,
            page_cache=launch.page_cache,
            first_step_s=heard.first_step_s,
        ),
        samples=[schema.Sample(**sample) for sample in heard.samples.get(index, [])],
        memory=_memory(index, launch),
        energy=energy,
        conditions=found,
        collector=metering.collector(launch),
        warnings=_allowed(heard, situation)
        + conditions.doubts(found)
        + metering.doubts(energy)
        + _warnings(index, launch),
    )


def refused_record(case: Case, support: Support, case_key: str, launch: Launch, situation: Situation) -> Record:
    """The record of a case that the adapter declares it cannot execute."""
    return new_record(
        launch_id=launch.launch_id,
        status="unsupported",
        reason=schema.Reason(what=support.detail or "not supported", code=support.reason),
        identity=_identity(case, launch, situation),
        covariates=_covariates(launch, situation),
        info=_info(case_key, launch, situation),
    )


def canonical_weight_bytes(case: Case) -> int:
    """Bytes that one decode step reads at the scheme's nominal width, without scales: comparable across runtimes.

    A table that is only looked rows up in does not count; a tied one serves as lm_head and counts once.
    """
    arch = case.arch
    layer = arch.hidden * (2 * arch.q_rows + 2 * arch.kv_rows + 3 * arch.ffn)
    bits = _BITS[case.scheme]
    return int((layer * arch.layers * bits + arch.vocab * arch.hidden * _TABLE_BITS.get(case.scheme, bits)) / 8)


def _status(case: Case, index: int, launch: Launch) -> tuple[schema.Status, schema.Reason | None]:
    heard = launch.heard
    error = heard.error_of(index)
    if error is None and index not in heard.done:
        error = CaseError("the worker ended before this case", phase="measure", remedy="see the launch's log")
    if isinstance(error, InvalidMeasurement):
        return "invalid", _reason(error)
    if error is not None:
        return "failed", _reason(error)
    if doubt := _impossible(case, index, heard):
        return "invalid", schema.Reason(what=doubt, code="impossible-rate")
    if doubt := conditions.too_warm(index, launch):
        return "invalid", schema.Reason(what=doubt, code="throttled", remedy="cool it better, or give --cool-to 60")
    if not launch.computes:
        return "unproven", schema.Reason(what="computes nothing: it measures the harness", code="no-model")
    if not heard.checks:
        return "unproven", schema.Reason(what=_UNPROVABLE if case.from_file else _NO_REFERENCE, code="no-reference")
    return "ok", None


def _reason(error: BenchError) -> schema.Reason:
    code = {InvalidMeasurement: "invalid", PrerequisiteError: "prerequisite"}.get(type(error), "failed")
    where = f"{error.where}: " if error.where else ""
    return schema.Reason(
        what=where + error.what,
        code=code,
        phase=error.phase if isinstance(error, CaseError) else None,
        cause=error.cause,
        remedy=error.remedy,
    )


def _impossible(case: Case, index: int, heard: Heard) -> str | None:
    """Decode faster than the memory could deliver the weights, by the median sample: the figure that tables show."""
    means_s = [fmean(sample["step_s"]) for sample in heard.samples.get(index, []) if sample["step_s"]]
    traffic = attest.decode_traffic(heard.facts) if heard.facts else None
    ceiling = _ceiling(index, heard)
    if not means_s or traffic is None or ceiling is None or ceiling.read_bytes_per_s is None:
        return None
    return attest.impossible(
        attest.mbu_ratio(traffic, case.workload, median(means_s), ceiling.read_bytes_per_s, ceiling.llc_bytes)
    )


def _identity(case: Case, launch: Launch, situation: Situation) -> schema.Identity:
    facts, workload = launch.heard.facts, case.workload
    kinds = {device.kind for device in facts.devices} if facts else set()
    where = kinds.pop() if len(kinds) == 1 else None
    options = dict(case.options)
    if facts and facts.threads is not None and options.get("threads", 0) is None:
        options["threads"] = facts.threads  # what the runtime chose, not that it was left to choose
    return schema.Identity(
        model=case.model,
        scheme=case.scheme,
        weights=schema.Weights(source="file" if case.from_file else case.weights, digest=launch.digest),
        backend=case.backend,
        provider=case.provider,
        fidelity=case.fidelity,
        host_id=situation.host_id,
        devices=[schema.DeviceRef(**asdict(device)) for device in facts.devices] if facts else _asked(case),
        parallel={"tp": 1, "pp": 1, "ranks": 1},
        workload=msgspec.convert(asdict(workload), schema.WorkloadRef),
        kv_capacity=case.kv_capacity,
        placement={"attention": where, "experts": None, "lm_head": where},
        options=options,
        method=METHOD,
        definition=definition_hash(case.arch),
    )


def _asked(case: Case) -> list[schema.DeviceRef]:
    """The device that was asked for, where none is known to have computed: failures on two devices are two rows."""
    return [schema.DeviceRef(kind="unknown", name=case.device)] if case.device else []


def _covariates(launch: Launch, situation: Situation) -> schema.Covariates:
    return schema.Covariates(
        runtime=launch.versions,
        builder=launch.builder,
        kernel=situation.kernel,
        governor=situation.governor,
        code=schema.Code(commit=situation.commit, dirty=situation.dirty),
        machine=situation.settings,
        **metering.device_settings(launch),
    )


def _info(case_key: str, launch: Launch, situation: Situation) -> schema.Info:
    return schema.Info(
        started_at_utc=launch.started_at_utc,
        host={**situation.host, "worker_python": launch.heard.python_version},
        interpreter=_interpreter(launch),
        command=situation.command,
        launch_index=launch.index,
        sweep_id=situation.sweep_id,
        case_key=case_key,
        seed=situation.seed,
        repetitions=situation.repetitions,
        budget_s=situation.budget_s,
        allow_fallback=situation.allow_fallback,
        ab_id=situation.part.ab_id if situation.part else None,
        ab_side=situation.part.side if situation.part else None,
    )


def _interpreter(launch: Launch) -> schema.Interpreter | None:
    """Where the worker was executed; None where none was found."""
    chosen = launch.interpreter
    if chosen is None:
        return None
    return schema.Interpreter(
        origin=chosen.origin,
        python=chosen.python,
        prefix=list(chosen.prefix),
        version=launch.heard.python_version,
        packages=launch.heard.packages,
        memory_read="inside" if chosen.prefix else "outside",
    )


def _facts(case: Case, facts: SessionFacts | None) -> schema.Facts | None:
    if facts is None:
        return None
    known = {name: value for name, value in asdict(facts).items() if name != "devices"}
    canonical = canonical_weight_bytes(case) if case.scheme in _BITS and facts.weights != "none" else None
    derived = {"canonical_weight_bytes": canonical, "elsewhere_share": attest.elsewhere_share(facts)}
    return msgspec.convert({**known, **derived}, schema.Facts)


def _gate(index: int, launch: Launch) -> schema.Gate | None:
    """The prefill's check as the headline, the decode's and the timed shape's in `shapes`."""
    heard = launch.heard
    refused = isinstance(
        heard.errors.get(index) or (heard.error if index not in heard.done else None), InvalidMeasurement
    )
    if not heard.checks:
        return schema.Gate(verdict="failed", certificate=launch.certificate) if refused else None
    first, *others = heard.checks
    shapes = [*others, *([heard.shapes[index]] if index in heard.shapes else [])]
    return schema.Gate(
        verdict="failed" if refused else "passed",
        class_=first["precision_class"],
        error=first["error"],
        predicted=first["predicted"],
        worst_error=first["worst"],
        alignment=first["alignment"],
        kl_mean=first["kl_mean"],
        top1_ratio=first["top1_ratio"],
        certificate=launch.certificate,
        shapes=shapes,
    )


def _ceiling(index: int, heard: Heard) -> schema.Ceiling | None:
    """Best of the passes beside the case; a memory is a ceiling only for what computes from it."""
    facts, probes = heard.facts, heard.beside(index)
    if not probes or facts is None or not facts.devices or any(d.kind != probes[0]["kind"] for d in facts.devices):
        return None
    rates = [rate for probe in probes for rate in probe["read_bytes_per_s"]]
    return schema.Ceiling(
        read_bytes_per_s=max(rates), spread=1 - min(rates) / max(rates), llc_bytes=probes[0]["llc_bytes"]
    )


def _memory(index: int, launch: Launch) -> list[schema.Memory]:
    memory = launch.memory
    loaded, peak = memory.loaded, memory.peak_of(index)
    prefilled = memory.right_after(index, launch.heard.prefilled_ns(index))
    host = schema.Memory(
        device="host",
        anon_loaded_bytes=loaded.anon_bytes,
        file_loaded_bytes=loaded.file_bytes,
        anon_prefilled_bytes=prefilled.anon_bytes,
        file_prefilled_bytes=prefilled.file_bytes,
        anon_peak_bytes=peak.anon_bytes,
        file_peak_bytes=peak.file_bytes,
    )
    return [host, *(schema.Memory(**use) for use in launch.heard.uses_of(index))]


def _allowed(heard: Heard, situation: Situation) -> list[str]:
    passed = attest.passed(heard.facts, situation.allow_fallback) if heard.facts else None
    return [passed] if passed else []


def _warnings(index: int, launch: Launch) -> list[str]:
    heard, said = launch.heard, list[str]()
    ceiling = _ceiling(index, heard)
    if ceiling and ceiling.spread is not None and ceiling.spread > NOISY_SPREAD:
        said.append(f"the read bandwidth varied by {ceiling.spread:.0%} beside this case: the machine is not quiet")
    fed = (launch.certificate or {}).get("fed") or {}
    if fed.get("unread"):
        said.append(f"{fed['unread']} tensors could not be read back from the runtime")
    if index in heard.done and heard.error is not None:
        said.append(f"after this case the worker failed: {heard.error}")
    return said
