"""The columns of what sensors told; each appears only where something was measured."""

from __future__ import annotations

from functools import partial

from bench.reports import metered
from bench.reports.column import Column, number, size, when_used

NOTE = Column(
    key="energy",
    header="energy",
    meaning="what the weights were while energy was read",
    of=metered.whose_energy,
    below=True,
    shown=when_used,
)

METERED = (
    Column(
        key="prefill_j_per_token",
        header="J/tok in",
        meaning="gross energy of the devices that computed, per token of the prompt",
        of=lambda row: metered.j_per_token(row, "prefill"),
        text=number,
        numeric=True,
        shown=when_used,
    ),
    Column(
        key="decode_j_per_token",
        header="J/tok",
        meaning="gross energy of the devices that computed, per token of the decode steps",
        of=lambda row: metered.j_per_token(row, "decode"),
        text=number,
        numeric=True,
        shown=when_used,
    ),
    *(
        Column(
            key=f"wall_{phase}_j_per_token",
            header="wall J/tok" + (" in" if phase == "prefill" else ""),
            meaning=f"the same of the whole machine by an external meter, in {phase}",
            of=partial(metered.wall_j_per_token, phase=phase),
            text=number,
            numeric=True,
            shown=when_used,
        )
        for phase in ("prefill", "decode")
    ),
    Column(
        key="mean_w",
        header="W",
        meaning="mean power of the devices that computed, each phase by the time it took when it was timed",
        of=metered.mean_w,
        text=number,
        numeric=True,
        shown=when_used,
    ),
    Column(
        key="memory_bytes",
        header="mem",
        meaning="the most that the runtime allocated on its device, else what came into use there; "
        "of a processor the worker's memory with its mapped files",
        of=metered.memory_bytes,
        text=size,
        numeric=True,
        shown=when_used,
    ),
    Column(
        key="throttled",
        header="throttled",
        meaning="reasons for which a device was slowed down meanwhile",
        of=metered.throttled,
        folds=True,
        shown=when_used,
    ),
)
