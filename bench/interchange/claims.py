"""From a row of llama-bench to a record: what the row proves is filled in, everything else stays unknown.

The record is a claim: `imported`, `unproven`, and every field of the row is kept beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bench.interchange.checks import digest
from bench.interchange.llama_bench import FIGURES, FORMAT, KINDS, Row
from bench.results.record import Record, new_record
from bench.results.schema import (
    Covariates,
    DeviceRef,
    Identity,
    Info,
    Reason,
    Sample,
    Source,
    Weights,
    WorkloadRef,
)
from bench.spec import parse_workload

BACKEND = "llamacpp"
METHOD = 0
"""Of `identity.method`: not this project's way of measuring."""
UNKNOWN = "unknown"

CLAIM = Reason(what=f"imported from {FORMAT}: a claim, held against no reference", code="imported")

_NOT_OPTIONS = {
    *("build_commit", "build_number", "cpu_info", "gpu_info", "model_filename", "devices"),
    *("n_prompt", "n_gen", "n_depth", *FIGURES),
}
"""Everything else of a row is how it was executed: what llama-bench itself tells results apart by."""

_SCHEME = re.compile(
    r"(?P<model>.*?)\s*(?:\(guessed\) )?(?:mostly |all )?"
    r"\b(?P<type>I?Q\d\w*|TQ\d\w*|B?F16|F32|MXFP4|NVFP4)(?P<mix> mix)?(?: (?P<moe>MoE))?(?: - (?P<size>\w+)\b.*)?$"
)
_FLASH = {False: "off", True: "on", -1: "auto"}


def claimed_record(row: Row, launch_id: str, file: str) -> Record:
    """The record of one checked `row` of `file`."""
    return new_record(
        launch_id=launch_id,
        origin="imported",
        status="unproven",
        reason=CLAIM,
        identity=_identity(row.fields),
        covariates=Covariates(runtime={"llama.cpp" if _by_llama_bench(row.fields) else UNKNOWN: _build(row.fields)}),
        info=Info(
            started_at_utc=row.fields["test_time"],
            host={"cpu": row.fields["cpu_info"], "gpu": row.fields["gpu_info"] or None},
            repetitions=len(row.fields.get("samples_ns") or ()) or None,
        ),
        samples=_samples(row.fields),
        source=_source(row, file),
        warnings=_warnings(row),
    )


def model_and_scheme(fields: Mapping[str, Any]) -> tuple[str, str]:
    """`llama 7B Q4_K - Medium` as `llama-7b` and `q4_k_m`: llama-bench's own words, never a scheme of this project.

    Where llama.cpp does not know the size (`llama ?B`), the model is called by its file.
    """
    described = fields["model_type"] or ""
    found = _SCHEME.fullmatch(described)
    model, scheme = (found["model"], _scheme(found)) if found else (described, UNKNOWN)
    if (not model or "?" in model) and (file := file_name(fields)):
        model = file.rpartition(".")[0] or file
    return _word(model.replace("?B", "")) or UNKNOWN, scheme


def file_name(fields: Mapping[str, Any]) -> str | None:
    """The model's file without its folders; None where it is not ASCII, for then it may be destroyed."""
    name = re.split(r"[/\\]", fields["model_filename"] or "")[-1]
    return name if name and name.isascii() else None


def _scheme(found: re.Match[str]) -> str:
    kind = found["type"].lower()
    if found["mix"]:
        return f"{kind.removesuffix('_s')}_m"  # IQ3_M is called `IQ3_S mix`
    sized = found["size"] if found["size"] in ("Small", "Medium", "Large") else None
    return kind + (f"_{sized[0].lower()}" if sized else "") + ("_moe" if found["moe"] else "")


def _word(text: str) -> str:
    """`text` as a name: lower-case letters, digits, `.`, `_` and `-`."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower())[:64].strip("-.")


def _identity(fields: Mapping[str, Any]) -> Identity:
    model, scheme = model_and_scheme(fields)
    return Identity(
        model=model,
        scheme=scheme,
        weights=Weights(source=file_name(fields) or UNKNOWN),
        backend=BACKEND if _by_llama_bench(fields) else UNKNOWN,
        fidelity="native",
        devices=_devices(fields),
        workload=_workload(fields),
        options={name: _option(name, value) for name, value in fields.items() if name not in _NOT_OPTIONS},
        method=METHOD,
    )


def _option(name: str, value: Any) -> Any:
    return _FLASH.get(value, value) if name == "flash_attn" else value


def _workload(fields: Mapping[str, Any]) -> WorkloadRef:
    prompt, new, depth = (fields.get(name) or 0 for name in ("n_prompt", "n_gen", "n_depth"))
    parts = [f"pp{prompt}"] * bool(prompt) + [f"tg{new}"] * bool(new)
    named = parse_workload("+".join(parts) + (f"@d{depth}" if depth else ""))
    return WorkloadRef(
        name=named.name, prompt_tokens=prompt, new_tokens=new, depth=depth, chunk=fields["n_batch"] or None
    )


def _devices(fields: Mapping[str, Any]) -> list[DeviceRef]:
    """What computed, as far as the row leaves no doubt, and the processor, which always takes part.

    `gpu_info` lists all that are there and `backends` all that are compiled in, whether they were used or not; with no
    layer on a device, a prefill may be computed there all the same.
    """
    host = DeviceRef(kind="cpu", name=fields["cpu_info"] or UNKNOWN)
    present, chosen, layers = fields["gpu_info"] or "", fields.get("devices"), fields.get("n_gpu_layers")
    if chosen == "none" or (layers == 0 and fields.get("no_op_offload")) or (not present and _host_alone(fields)):
        return [host]
    if present and layers and not re.search("[,/]", present):
        return [DeviceRef(kind="gpu", name=present), host]
    return [DeviceRef(kind=UNKNOWN, name=present if chosen in (None, "auto") else chosen), host]


def _host_alone(fields: Mapping[str, Any]) -> bool:
    """Whether nothing but processors is compiled in; G0 has a flag for each instead of a list."""
    if "backends" in fields:
        return set((fields["backends"] or UNKNOWN).split(",")) <= {"CPU", "BLAS"}
    return not any(value in (True, "1") for name, value in fields.items() if name not in KINDS)


def _by_llama_bench(fields: Mapping[str, Any]) -> bool:
    """False for what this project exported of another runtime: llama-bench always knows what it was compiled with."""
    return fields.get("backends", BACKEND) is not None


def _build(fields: Mapping[str, Any]) -> str:
    number = fields["build_number"]
    commit = fields["build_commit"] or UNKNOWN
    return commit if number is None else f"{commit} ({number})"


def _samples(fields: Mapping[str, Any]) -> list[Sample]:
    """One interval a repetition; in which phase is known, but no single step."""
    times = [sample / 1e9 for sample in fields.get("samples_ns") or ()]
    if fields["n_prompt"] and fields["n_gen"]:
        return [Sample(kind="phase", total_s=time) for time in times]
    if fields["n_prompt"]:
        return [Sample(kind="phase", prefill_s=time) for time in times]
    return [Sample(kind="phase", decode_s=time) for time in times]


def _source(row: Row, file: str) -> Source:
    stated = row.fields if not row.fields.get("samples_ns") else {}
    return Source(
        format=FORMAT,
        generation=row.generation,
        notation=row.notation,
        file=file,
        line=row.line,
        row_digest=digest(row),
        fields=dict(row.fields),
        mean_tokens_per_s=stated.get("avg_ts"),
        sd_tokens_per_s=stated.get("stddev_ts"),
    )


def _warnings(row: Row) -> list[str]:
    said = []
    if "\uffff" in (row.fields["model_filename"] or ""):
        said.append("llama-bench destroyed the name of the model's file, which is not ASCII: nothing rests on it")
    if not row.fields.get("samples_ns"):
        said.append("no samples: the rate is the mean that llama-bench states, not a median")
    if row.fields["stddev_ts"] is None:
        said.append("stddev_ts is no number in the source")
    if any(device.kind == UNKNOWN for device in _devices(row.fields)):
        said.append("the source does not prove which device computed")
    return said
