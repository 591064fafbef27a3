"""Every column a table can have, declared once."""

from __future__ import annotations

from collections.abc import Callable

from bench.reports import row as read
from bench.reports.column import (
    Cell,
    Column,
    always,
    duration,
    never,
    number,
    percent,
    ratio,
    when_differing,
    when_mixed,
    when_used,
)
from bench.reports.metered_columns import METERED, NOTE
from bench.reports.metrics import METRICS, PERCENTILE_FLOORS
from bench.reports.placed_columns import ON_PROVIDER, PROVIDER
from bench.reports.published_columns import AGE, BADGES, INTERVAL, PRECISION, RELATIVE
from bench.reports.row import Row


def _figure(key: str, part: str = "value") -> Callable[[Row], Cell]:
    """Reads one part of one figure of the row's summary."""

    def of(row: Row) -> Cell:
        cell: Cell = getattr(row.figure(key), part)
        return cell

    return of


def _csv(key: str, meaning: str, of: Callable[[Row], Cell]) -> Column:
    return Column(key=key, header=key, meaning=meaning, of=of)


def _figures(key: str, meaning: str) -> list[Column]:
    """The CSV columns of one figure: its value and, over several launches, its interval."""
    return [
        _csv(key, meaning, _figure(key)),
        _csv(f"{key}.low", f"lower end of the 95 % interval of {key}", _figure(key, "low")),
        _csv(f"{key}.high", f"upper end of the 95 % interval of {key}", _figure(key, "high")),
    ]


_FOR_PEOPLE = (
    Column(
        key="model",
        header="model",
        meaning="model and scheme",
        of=lambda row: row.model,
        folds=True,
        in_heading=True,
        shown=always,
    ),
    Column(
        key="backend",
        header="backend",
        meaning="adapter of the runtime that executed it",
        of=lambda row: row.first.identity.backend,
        shown=always,
    ),
    PROVIDER,
    ON_PROVIDER,
    Column(
        key="devices",
        header="device",
        meaning="devices as the runtime names them",
        of=read.devices,
        folds=True,
        shown=when_differing,
        published=always,
    ),
    Column(
        key="fidelity",
        header="fidelity",
        meaning="native (the runtime's own precision) or exact",
        of=lambda row: row.first.identity.fidelity,
        in_heading=True,
        shown=when_differing,
    ),
    PRECISION,
    Column(
        key="weights",
        header="weights",
        meaning="where the weights come from",
        of=lambda row: row.first.identity.weights.source,
        folds=True,
        shown=when_differing,
    ),
    Column(
        key="isa",
        header="isa",
        meaning="instruction set that the kernels may use, in the runtime's words",
        of=read.isa,
        folds=True,
        shown=when_differing,
    ),
    Column(
        key="options",
        header="options",
        meaning="adapter options that tell the table's rows apart",
        of=read.options,
        folds=True,
        shown=when_used,
    ),
    Column(
        key="runtime",
        header="runtime",
        meaning="versions of the runtime",
        of=read.runtime,
        folds=True,
        shown=when_differing,
    ),
    Column(
        key="host_id",
        header="host",
        meaning="digest that stands for the machine",
        of=lambda row: row.first.identity.host_id,
        shown=when_differing,
    ),
    Column(key="date", header="date", meaning="day of the first launch (UTC)", of=read.date, shown=when_differing),
    Column(
        key="whose",
        header="whose",
        meaning="own, or published: redacted, as the reference records of this project are",
        of=read.whose,
        shown=when_mixed,
    ),
    Column(
        key="workload",
        header="workload",
        meaning="what was fed: prompt and new tokens, depth, batch",
        of=lambda row: row.first.identity.workload.name,
        folds=True,
        in_heading=True,
        shown=always,
    ),
    Column(
        key="status",
        header="status",
        meaning="ok, unproven (no reference to prove it), invalid, failed or unsupported; a claim if imported; ! where "
        "there are warnings",
        of=read.status,
        says=read.flagged_status,
        shown=always,
        published=never,
    ),
    BADGES,
    Column(
        key="headline_tokens_per_s",
        header="tok/s",
        meaning="the rate that the workload is about: pp for a prompt alone, tg for new tokens alone, pg for "
        "llama-bench's sum of both, decode after a prompt",
        of=lambda row: row.headline.value,
        text=number,
        numeric=True,
        shown=always,
    ),
    RELATIVE,
    *INTERVAL,
    Column(
        key="headline_half_width_ratio",
        header="±",
        meaning="half of the 95 % t interval of tok/s over launches, as a share of it",
        of=read.half_width_ratio,
        text=percent,
        numeric=True,
        shown=when_used,
        published=never,
    ),
    Column(
        key="n_launches",
        header="n",
        meaning="launches summarized in the row",
        of=lambda row: row.summary.n_launches,
        numeric=True,
        shown=when_mixed,
        published=never,
    ),
    Column(
        key="ttft_s",
        header="ttft",
        meaning="time to the first generated token",
        of=_figure("ttft_s"),
        text=duration,
        numeric=True,
        shown=when_used,
    ),
    Column(
        key="tpot_s",
        header="tpot",
        meaning="time per further token",
        of=_figure("tpot_s"),
        text=duration,
        numeric=True,
        shown=when_used,
    ),
    Column(
        key="mbu_ratio",
        header="mbu",
        meaning="share of the probed read bandwidth that decode used",
        of=_figure("mbu_ratio"),
        text=ratio,
        numeric=True,
        shown=when_used,
    ),
    *METERED,
    Column(
        key="gate_ratio",
        header="gate",
        meaning="measured error / error that the declared precision must cause: 1 is right, the band 0.8 to 1.25; "
        "exact where float32 is declared and agrees within 1e-4",
        of=read.gate_ratio,
        says=read.gate,
        numeric=True,
        shown=when_used,
    ),
    AGE,
    Column(
        key="record_ids",
        header="record",
        meaning="records summarized in the row; for people the end of the newest's id, as `bench show` takes it",
        of=lambda row: " ".join(r.record_id for r in row.records),
        says=lambda row: max(r.record_id for r in row.records)[-6:],
        shown=always,
    ),
    Column(
        key="warnings",
        header="warnings",
        meaning="what was odd, though nothing forbids believing it",
        of=read.warnings,
        below=True,
        shown=when_used,
    ),
    NOTE,
    Column(
        key="reason",
        header="reason",
        meaning="why it is not ok, and the next command",
        of=read.reason,
        below=True,
        shown=when_used,
    ),
)

_FOR_MACHINES = (
    *(column for metric in METRICS for column in _figures(metric.key, metric.meaning)),
    *(
        column
        for level, floor in PERCENTILE_FLOORS.items()
        for column in _figures(f"itl_p{level}_s", f"percentile {level} of the gaps between ids; {floor} or more")
    ),
    _csv(
        "headline_mean_tokens_per_s",
        "mean over the samples of tok/s, as llama-bench prints it",
        lambda row: row.headline.mean,
    ),
    _csv(
        "n_samples",
        "samples behind the headline; 0 where a source states it without",
        lambda row: row.headline.n_samples,
    ),
    _csv("within_cv", "coefficient of variation of the headline inside a launch", lambda row: row.headline.within_cv),
    _csv("group", "what the rows have in common that may be ranked among each other", lambda row: row.group),
    _csv("gate_class", "precision class that the gate judged by", read.gate_class),
    _csv(
        "commit",
        "commit of this project that measured",
        lambda row: row.first.covariates.code.commit if row.first.covariates.code else None,
    ),
    _csv("series_key", "digest of the identity", lambda row: row.first.series_key),
    _csv("config_key", "digest of the identity without host and physical device", lambda row: row.first.config_key),
    _csv("precision_key", "digest of the effective precision", lambda row: row.first.precision_key),
)

_SHOWN_KEYS = {column.key for column in _FOR_PEOPLE}
COLUMNS = (
    *(column for column in _FOR_PEOPLE if not column.below),
    *(column for column in _FOR_MACHINES if column.key not in _SHOWN_KEYS),
    *(column for column in _FOR_PEOPLE if column.below),
)
"""All columns in order. CSV has every one; a table for people those that are `shown`, the reason always last."""
