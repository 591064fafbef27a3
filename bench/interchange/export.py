"""From a record to a row of llama-bench: its names, its order, its definitions. What is not known is None."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from statistics import fmean, stdev
from typing import Any

from bench.artifacts.layout import MATRIX_SCHEMES, tensor_specs
from bench.interchange.llama_bench import FIELDS, FORMAT, SAMPLES
from bench.results.record import Record
from bench.results.schema import Sample
from bench.spec import definition_hash, parameters
from bench.types import Arch

FROM_OPTIONS = {
    **{name: name for name in ("n_batch", "n_ubatch", "cpu_mask", "cpu_strict", "poll", "type_k", "type_v")},
    **{name: name for name in ("n_gpu_layers", "n_cpu_moe", "split_mode", "main_gpu", "no_kv_offload", "flash_attn")},
    **{name: name for name in ("load_mode", "lazy_mode", "no_op_offload", "no_host", "repack", "tensor_split")},
    "n_threads": "threads",
    "tensor_buft_overrides": "override_tensor",
}
"""Field -> option of the adapter."""

NOT_USED = {
    "tensor_split": "0.00",
    "tensor_buft_overrides": "none",
    "embeddings": False,
    "fit_target": 0,
    "fit_min_ctx": 0,
}
"""As llama-bench writes what was not asked for; of backend `llamacpp` alone, which has no other options for these."""

_FLASH = {"auto": -1, "off": 0, "on": 1}
_TYPES = {"int8": "Q8_0", "int4": "Q4_0", "fp16": "F16", "bf16": "BF16"}
_BUILD = re.compile(r"(\S+) \((\d+)\)")


def row_line(row: Mapping[str, Any]) -> str:
    """One line of JSONL, without its end."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def llama_bench_row(record: Record, arch: Arch | None) -> dict[str, Any] | None:
    """The record as llama-bench would have written it; None for a workload that llama-bench has not, or no times.

    What was imported from llama-bench comes out as it went in. `arch` are the model's numbers, if they are known.
    """
    if record.source is not None and record.source.format == FORMAT:
        return dict(record.source.fields)
    workload = record.identity.workload
    times_s = [_time_s(sample) for sample in record.samples]
    if workload.first_id_from_prompt or workload.batch > 1 or not all(times_s) or not times_s:
        return None
    known = {**_build(record), **_machine(record), **_model(record, arch), **_settings(record)}
    samples_ns = [round(time * 1e9) for time in times_s]
    known |= {"n_prompt": workload.prompt_tokens, "n_gen": workload.new_tokens, "n_depth": workload.depth}
    known |= _figures(samples_ns, workload.prompt_tokens + workload.new_tokens)
    known["test_time"] = _test_time(record.info.started_at_utc)
    return {name: known.get(name) for name in (*FIELDS, *SAMPLES)}


def _time_s(sample: Sample) -> float:
    """Of one repetition: prompt and new tokens in one interval."""
    if sample.total_s is not None:
        return sample.total_s
    return (sample.prefill_s or 0.0) + (sample.decode_s or 0.0) + sum(sample.step_s)


def _figures(samples_ns: list[int], tokens: int) -> dict[str, Any]:
    """Mean and sample standard deviation of times, in whole nanoseconds, and of rates."""
    rates = [1e9 * tokens / sample for sample in samples_ns]
    several = len(samples_ns) > 1
    return {
        "avg_ns": sum(samples_ns) // len(samples_ns),
        "stddev_ns": int(stdev(samples_ns)) if several else 0,
        "avg_ts": fmean(rates),
        "stddev_ts": stdev(rates) if several else 0.0,
        "samples_ns": samples_ns,
        "samples_ts": rates,
    }


def _test_time(started_at_utc: str | None) -> str | None:
    """In whole seconds, as llama-bench writes it."""
    try:
        started = datetime.fromisoformat((started_at_utc or "").replace("Z", "+00:00"))
    except ValueError:
        return None
    return started.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _build(record: Record) -> dict[str, Any]:
    """llama.cpp's commit or version; another runtime by its name and version."""
    runtime = record.covariates.runtime
    version = runtime.get("llama.cpp") or next((f"{name} {version}" for name, version in runtime.items()), None)
    commit, number = found.groups() if version and (found := _BUILD.fullmatch(version)) else (version, None)
    compiled = re.search(r" with (\S+)", runtime.get("ggml", ""))
    others = [name for name in compiled[1].split("+") if name != "CPU"] if compiled else []
    return {
        "build_commit": commit,
        "build_number": int(number) if number else None,
        "backends": (",".join(others) or "CPU") if compiled else None,
    }


def _machine(record: Record) -> dict[str, Any]:
    devices = record.identity.devices
    accelerators = [device.name for device in devices if device.kind != "cpu"]
    host = record.info.host.get("cpu") or next((device.name for device in devices if device.kind == "cpu"), None)
    return {
        "cpu_info": host,
        "gpu_info": ", ".join(accelerators) if devices else None,
        "devices": ("/".join(accelerators) or "none") if devices else None,
    }


def _model(record: Record, arch: Arch | None) -> dict[str, Any]:
    """Type and file by this project's names; size and parameters where `arch` is what was measured."""
    identity = record.identity
    told: dict[str, Any] = {
        "model_filename": f"{identity.model}-{identity.scheme}.gguf",
        "model_type": f"{identity.model} {_TYPES.get(identity.scheme, identity.scheme)}",
    }
    if arch is None or identity.scheme not in MATRIX_SCHEMES or definition_hash(arch) != identity.definition:
        return told
    size = sum(spec.bytes for spec in tensor_specs(arch, identity.scheme))
    return {**told, "model_size": size, "model_n_params": parameters(arch)}


def _settings(record: Record) -> dict[str, Any]:
    options = record.identity.options
    told = {field: options.get(option) for field, option in FROM_OPTIONS.items()}
    if told["n_threads"] is None and record.facts is not None:
        told["n_threads"] = record.facts.threads
    if told["flash_attn"] is not None:
        told["flash_attn"] = _FLASH.get(told["flash_attn"], told["flash_attn"])
    if isinstance(told["no_op_offload"], bool):
        told["no_op_offload"] = int(told["no_op_offload"])
    if record.identity.backend == "llamacpp":
        told |= {name: value for name, value in NOT_USED.items() if told.get(name) is None}
    return told
