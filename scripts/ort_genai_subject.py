"""What `scripts/against_ort_genai` lets a fresh process do: genai's generator loop, timed; or greedy ids of ours."""

from __future__ import annotations

import gc
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bench.types import LoadGroup, Prepared

FIRST_ID = 17
"""The prompt of either side's greedy ids: one token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """genai's side: a folder that it loads, and what both sides share."""

    folder: Path
    threads: int
    capacity: int
    steps: int


def fresh(function: Any, *given: Any) -> Any:
    """What `function` answers in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as one:
        return one.submit(function, *given).result()


def rates(loop: Loop, repetitions: int) -> list[float]:
    """Tokens per second of each repetition, after one that is not counted.

    A repetition is append_tokens of one id, which executes the model, and `steps` times generate_next_token, of which
    the first takes the id that is there already and each other one executes the model: as many executions as steps,
    from an empty cache on, as in our workload. Buffers are kept from one to the next.
    """
    generator = opened(loop)
    taken = []
    gc.disable()
    for number in range(repetitions + 1):
        generator.rewind_to(0)
        prompt = np.array([[number]], np.int32)
        began_ns = time.perf_counter_ns()
        generator.append_tokens(prompt)
        for _ in range(loop.steps):
            generator.generate_next_token()
        ended_ns = time.perf_counter_ns()
        if number > 0:
            taken.append(loop.steps / (ended_ns - began_ns) * 1e9)
        if len(generator.get_sequence(0)) != loop.steps + 1:
            raise SystemExit(f"genai ended after {len(generator.get_sequence(0)) - 1} of {loop.steps} tokens")
    return taken


def their_ids(loop: Loop, count: int) -> list[int]:
    """Greedy ids after `FIRST_ID`."""
    generator = opened(loop)
    generator.append_tokens(np.array([[FIRST_ID]], np.int32))
    for _ in range(count):
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)[1:]]


def our_ids(group: LoadGroup, prepared: Prepared, count: int) -> list[int]:
    """The same from the adapter's session."""
    from backends.onnx import Onnx

    session = Onnx().open(group, prepared)
    ids, fed = [], np.array([[FIRST_ID]], np.int32)
    for _ in range(count):
        fed = session.step(fed)[:, None]
        ids.append(int(fed[0, 0]))
    return ids


def opened(loop: Loop) -> Any:
    """A generator over the folder: greedy, one cache of `capacity` positions that is past and present, no telemetry.

    `min_length` keeps the token that would end a sequence from being chosen; genai cannot do without such a token.
    """
    import onnxruntime_genai as genai

    genai.disable_telemetry_events()
    options = {"intra_op_num_threads": loop.threads, "inter_op_num_threads": 1}
    search = {
        "do_sample": False,
        "num_beams": 1,
        "top_k": 1,
        "min_length": loop.capacity,
        "max_length": loop.capacity,
        "past_present_share_buffer": True,
    }
    config = genai.Config(str(loop.folder))
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}, "search": search}))
    model = genai.Model(config)
    return genai.Generator(model, genai.GeneratorParams(model))
