"""What is still to be executed: disk summed over what the cache lacks, memory of each group, time limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from bench.api import Backend
from bench.artifacts import cache
from bench.cli import planned
from bench.cli.planned import Due, check_plan, default_timeout_s, due_of, too_short
from bench.errors import PrerequisiteError
from bench.preparing import Settings
from bench.runner import planned_keys
from tests.unit.test_plan import Adapter, adapters, plan


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))


def due(settings: Settings | None = None, missing: Sequence[str] | None = None, **given: Any) -> tuple[Due, ...]:
    made, settings = plan(**given), settings or Settings()
    known = adapters(*given.get("backends", ("fake",)))
    return due_of(made, known, settings, planned_keys(made, settings) if missing is None else missing)


def needed_disk(monkeypatch: pytest.MonkeyPatch, dues: tuple[Due, ...]) -> int:
    """The least free disk with which `check_plan` is content."""
    low, high = -1, sum(each.needed.disk_bytes for each in dues)
    while high - low > 1:
        middle = (low + high) // 2
        monkeypatch.setattr(planned, "_free_disk", lambda folder, free=middle: free)
        try:
            check_plan(dues)
            high = middle
        except PrerequisiteError:
            low = middle
    return high


def test_only_what_misses_a_record_is_due() -> None:
    made, settings = plan(workloads=("pp8", "tg8")), Settings(launches=2)
    first, *rest = planned_keys(made, settings)
    (left,) = due(settings, rest, workloads=("pp8", "tg8"))
    assert (left.cases, left.launches, len(left.group.cases)) == (3, 2, 2)
    (left,) = due(settings, [first], workloads=("pp8", "tg8"))
    assert (left.cases, left.launches, len(left.group.cases)) == (1, 1, 1)
    assert due(settings, []) == ()


def test_disk_is_summed_over_models_and_counts_each_folder_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = due(), due(models=("wide-int8",))
    size, more = one[0].needed.artifact_bytes, other[0].needed.artifact_bytes
    assert needed_disk(monkeypatch, one) == 2 * size
    assert needed_disk(monkeypatch, due(models=("tiny-int8", "wide-int8"))) == 2 * (size + more)
    groups = due(workloads=("pp8", "pp8x2"), devices=("0", "1"))
    assert len(groups) == 4 and needed_disk(monkeypatch, groups) == 2 * size
    assert needed_disk(monkeypatch, due(backends=("x", "y"))) == 3 * size, "one artifact, two prepared folders"


def test_what_the_cache_holds_needs_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    dues = due()
    case, size = dues[0].group.first, dues[0].needed.artifact_bytes
    cache.artifact_folder(case.model, case.arch, case.scheme, case.weights).mkdir(parents=True)
    assert needed_disk(monkeypatch, dues) == size
    cache.prepared_folder("fake", "tiny-int8", "0123").mkdir(parents=True)
    assert needed_disk(monkeypatch, dues) == 0


def test_a_refusal_names_what_it_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    dues = due(models=("tiny-int8", "wide-int8"))
    with monkeypatch.context() as patched:
        patched.setattr(planned, "_free_disk", lambda folder: 0)
        with pytest.raises(PrerequisiteError, match=r"tiny-int8 on fake, wide-int8 on fake: needs .* of disk"):
            check_plan(dues)
    monkeypatch.setattr(planned, "memory_available_bytes", lambda: dues[0].needed.host_bytes)
    check_plan(dues[:1])
    with pytest.raises(PrerequisiteError, match=r"wide-int8 on fake: needs .* of memory"):
        check_plan(dues)


def test_a_launch_gets_the_time_that_it_is_expected_to_take() -> None:
    short, long = due(), due(Settings(budget_s=7200.0), workloads=("pp8",))
    assert default_timeout_s(short) == default_timeout_s(()) == 3600
    assert default_timeout_s((*short, *long)) == 4 * long[0].needed.launch_s >= 4 * 7200
    assert too_short((*short, *long), 7000.0) == (
        "--timeout 1h 57m is short: a launch of tiny-int8 on fake may take about 2h 00m; leave it out to have enough"
    )
    assert too_short(long, 8000.0) is None and too_short((), 1.0) is None


def test_nothing_is_needed_where_nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = {"fake": cast(Backend, Adapter(computes=False))}
    made = plan()
    dues = due_of(made, idle, Settings(), planned_keys(made, Settings()))
    monkeypatch.setattr(planned, "_free_disk", lambda folder: 0)
    check_plan(dues)
