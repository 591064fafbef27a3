"""Who `scripts/against_genai` compares, each in a process of its own: the `openvino` backend and GenAI's pipeline."""

from __future__ import annotations

import gc
import sys
import time
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from backends.openvino import OpenVino
from bench import protocol
from bench.artifacts import cache
from bench.types import Case, LoadGroup, Prepared


def serve(name: str, case: Case, pipe: Connection) -> None:
    """Load `name` (ours, SDPA, PA), say what it is, then answer each prompt [n] until the pipe closes.

    An answer is ((seconds to the first id, seconds for each further one), greedy ids).
    """
    told, decode = ours(case) if name == "ours" else theirs(name, case)
    pipe.send(told)
    gc.disable()
    with suppress(EOFError):
        while True:
            prompt = pipe.recv()[None]
            began_ns = time.perf_counter_ns()
            ids, at_ns = decode(prompt)
            pipe.send((((at_ns[0] - began_ns) / 1e9, (at_ns[-1] - at_ns[0]) / 1e9 / (len(at_ns) - 1)), ids))
            gc.collect()


def ours(case: Case) -> tuple[str, Any]:
    """What it is, and the function from a prompt [1, n] to its greedy ids and when each came."""
    model = f"{case.model}-{case.scheme}"
    cached = [entry.path / "prepared.json" for entry in cache.entries() if entry.name.startswith(f"openvino-{model}-")]
    made = [path for path in cached if path.exists()]
    if not made:
        sys.exit(f"{model} is not prepared; first: scripts/bench run --backend openvino --model {model}")
    prepared = replace(protocol.decode(Prepared, made[-1].read_bytes()), path=str(made[-1].parent))
    session = OpenVino().open(LoadGroup(cases=(case,)), prepared)

    def decode(prompt: Any) -> tuple[list[int], list[int]]:
        session.rewind(0)
        ids, at_ns, fed = [], [], prompt.astype(np.int32)
        for _ in range(case.workload.new_tokens):
            fed = session.step(fed)[:, None]
            ids.append(int(fed[0, 0]))
            at_ns.append(time.perf_counter_ns())
        return ids, at_ns

    facts, (version,) = session.facts(), OpenVino().probe().versions.values()
    precision = (
        f"INFERENCE_PRECISION_HINT {facts.decode.compute}, {facts.decode.activations}, KV cache {facts.kv_cache}"
    )
    return f"OpenVINO {version}, {precision}, {facts.threads} threads", decode


def theirs(attention: str, case: Case) -> tuple[str, Any]:
    """As `ours`."""
    import openvino
    import openvino_genai as genai

    given: dict[str, Any] = {"ATTENTION_BACKEND": attention}
    if case.options["threads"]:
        given["INFERENCE_NUM_THREADS"] = case.options["threads"]
    if attention == "PA":  # as LLMPipeline sets it, but for the prefix cache; and it may not fall back to SDPA
        given["scheduler_config"] = scheduling = genai.SchedulerConfig()
        scheduling.enable_prefix_caching, scheduling.max_num_batched_tokens = False, sys.maxsize
    gguf = cache.artifact_folder(case.model, case.arch, case.scheme, case.weights) / "model.gguf"
    pipeline = genai.LLMPipeline(str(gguf), "CPU", **given)
    config = genai.GenerationConfig(max_new_tokens=case.workload.new_tokens, ignore_eos=True, do_sample=False)

    class Clock(genai.StreamerBase):
        def write(self, token: int | list[int]) -> Any:
            at_ns.append(time.perf_counter_ns())
            return genai.StreamingStatus.RUNNING

        def end(self) -> None:
            pass

    at_ns: list[int] = []

    def decode(prompt: Any) -> tuple[list[int], list[int]]:
        at_ns.clear()
        return list(pipeline.generate(openvino.Tensor(prompt.astype(np.int64)), config, Clock()).tokens[0]), at_ns

    return f"OpenVINO GenAI {genai.get_version()}", decode
