"""Records for tests: complete, made by hand, with numbers that are easy to check."""

from __future__ import annotations

from typing import Any

import msgspec

from bench.results.ids import new_uuid7
from bench.results.record import Record, new_record
from bench.results.schema import (
    Ceiling,
    Covariates,
    DeviceRef,
    Facts,
    Gate,
    Identity,
    Info,
    Phase,
    PlacedOn,
    Sample,
    Weights,
    WorkloadRef,
)
from bench.types import Workload

WORKLOADS = {
    "pp512": Workload(name="pp512", prompt_tokens=512, new_tokens=0),
    "tg4": Workload(name="tg4", prompt_tokens=0, new_tokens=4),
    "pp512+tg4": Workload(name="pp512+tg4", prompt_tokens=512, new_tokens=4),
    "512/5": Workload(name="512/5", prompt_tokens=512, new_tokens=5, first_id_from_prompt=True),
}
FACTS = Facts(
    weights="int8 row",
    prefill=Phase(activations="a8-g32", compute="f32", kernels={"matmul": "sgemm"}),
    decode=Phase(activations="a8-g32", compute="f32"),
    kv_cache="f32",
    resident_weight_bytes=1000,
    embedding_bytes=100,
    kv_bytes_per_token=10,
    canonical_weight_bytes=800,
)
GATE = Gate(verdict="passed", class_="a8-g32", error=0.022, predicted=0.02)
CEILING = Ceiling(read_bytes_per_s=4000.0, llc_bytes=100)


def fallback(share: float, device: str = "CPU", facts: Facts = FACTS, **operations: int) -> Facts:
    """`facts` of which that share of the matrix products, or only the `operations`, were on `device` instead of NPU."""
    here = PlacedOn(device="NPU", matmul_share=1 - share, operations={"MatMul": 197})
    there = PlacedOn(device=device, matmul_share=share, operations=operations or {"Attention": 6})
    changes = {"asked_placement": "NPU", "placement": [here, there], "elsewhere_share": share}
    return msgspec.structs.replace(facts, **changes)


def identity(workload: str | Workload = "tg4", **changed: Any) -> Identity:
    """An identity on a CPU; `changed` are its fields."""
    shape = WORKLOADS[workload] if isinstance(workload, str) else workload
    fields: dict[str, Any] = {
        "model": "smollm2-135m",
        "scheme": "int8",
        "weights": Weights(source="synthetic", digest="d1"),
        "backend": "onnx",
        "provider": "CPUExecutionProvider",
        "host_id": "h1",
        "devices": [DeviceRef(kind="cpu", name="A CPU", uuid="u1")],
        "workload": msgspec.convert(shape, WorkloadRef, from_attributes=True),
        "options": {"threads": 2},
    }
    return Identity(**{**fields, **changed})


def samples(workload: str = "tg4", step_s: float = 0.5, prefill_s: float = 2.0, count: int = 3) -> list[Sample]:
    """`count` equal repetitions of a named workload."""
    shape = WORKLOADS[workload]
    prefill = prefill_s if shape.prompt_tokens else None
    return [Sample(prefill_s=prefill, step_s=[step_s] * shape.decode_steps) for _ in range(count)]


def record(workload: str = "tg4", *, status: Any = "ok", who: Identity | None = None, **changed: Any) -> Record:
    """A record of a named workload; `changed` are fields of Record."""
    fields: dict[str, Any] = {
        "launch_id": new_uuid7(),
        "covariates": Covariates(runtime={"onnxruntime": "1.31.1"}),
        "info": Info(started_at_utc="2026-01-02T03:04:05Z"),
        "facts": FACTS,
        "gate": GATE,
        "ceiling": CEILING,
        "samples": samples(workload),
    }
    return new_record(status=status, identity=who or identity(workload), **{**fields, **changed})
