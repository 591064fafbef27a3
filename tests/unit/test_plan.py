"""From a request to load groups, and what they need."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.api import Backend
from bench.errors import PrerequisiteError, UsageError
from bench.needs import LOAD_SHARE, RUNTIME_BYTES, Estimate, check_disk, check_memory, estimate, weight_bytes
from bench.plan import Request, case_key, group_cases, kv_capacity, make_plan, parse_options, shuffled
from bench.spec import Catalog, Model, parameters, parse_workload
from bench.types import Arch, Case, Option, Support

ARCH = Arch(
    family="llama",
    layers=2,
    hidden=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    ffn=128,
    vocab=1024,
    context=4096,
    rope_theta=1e4,
    norm_eps=1e-5,
    tied=True,
)
CATALOG = Catalog(
    {
        name: Model(id=name, title=name, hub=None, params_b=None, arch=arch, file=cast(Any, None))
        for name, arch in {"tiny": ARCH, "wide": replace(ARCH, hidden=128, tied=False)}.items()
    }
)


@dataclass
class Adapter:
    name: str = "fake"
    computes: bool = True
    provider: str | None = None
    providers: dict[str, str] = field(default_factory=dict)
    options: dict[str, Option] = field(
        default_factory=lambda: {
            "threads": Option(kind=int, default=None, help="threads of the runtime", minimum=1),
            "dialect": Option(kind=str, default="a", help="form of the graph", choices=("a", "b")),
            "fast": Option(kind=bool, default=False, help="be fast"),
            "share": Option(kind=float, default=0.5, help="share of memory"),
        }
    )

    def support(self, case: Case) -> Support:
        if case.workload.batch > 2:
            return Support(ok=False, reason="NOT_UPSTREAM", detail="no batch")
        return Support(ok=True)

    def resident_ratio(self, case: Case) -> float:
        return 2.0


def adapters(*names: str) -> dict[str, Backend]:
    return {name: cast(Backend, Adapter(name)) for name in names}


def plan(**given: Any) -> Any:
    request = Request(**{"backends": ("fake",), "models": ("tiny-int8",), **given})
    return make_plan(request, CATALOG, adapters(*request.backends))


def names(group: Any) -> list[str]:
    return [case.workload.name for case in group.cases]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan"), 5])
def test_a_share_is_more_than_nothing_and_less_than_all(share: float) -> None:
    asked = Request(backends=("fake",), models=("tiny-int8",), allow_fallback=share)
    with pytest.raises(UsageError, match=r"^--allow-fallback: .* is no share between 0 and 1; write 5% or 0\.05"):
        make_plan(asked, CATALOG, {"fake": cast(Backend, Adapter())})


def test_what_is_allowed_changes_no_case() -> None:
    asked = Request(backends=("fake",), models=("tiny-int8",))
    adapters = {"fake": cast(Backend, Adapter())}
    assert make_plan(replace(asked, allow_fallback=0.05), CATALOG, adapters) == make_plan(asked, CATALOG, adapters)


def test_workloads_that_fit_one_loaded_model_share_a_group() -> None:
    made = plan(workloads=("pp512", "tg128", "chat", "rag", "pp512x2", "tg8x2"))
    assert sorted(map(sorted, map(names, made.groups))) == [["chat", "pp512", "tg128"], ["pp512x2", "tg8x2"], ["rag"]]
    assert {group.kv_capacity for group in made.groups} == {1024, 4096}
    assert not made.refused


def test_everything_else_makes_a_group_of_its_own() -> None:
    made = plan(backends=("x", "y"), models=("tiny-int8", "tiny-fp16", "wide-int8"), devices=("0", "1"))
    assert len(made.groups) == 12
    assert [(g.first.model, g.first.scheme, g.first.backend, g.first.device) for g in made.groups][:5] == [
        ("tiny", "int8", "x", "0"),
        ("tiny", "int8", "x", "1"),
        ("tiny", "int8", "y", "0"),
        ("tiny", "int8", "y", "1"),
        ("tiny", "fp16", "x", "0"),
    ]


def test_repeated_names_are_executed_once() -> None:
    made = plan(models=("tiny-int8", "tiny-int8"), workloads=("pp8", "pp8", "pp8 @ d0"))
    assert [names(group) for group in made.groups] == [["pp8"]]


def test_unsupported_cases_are_refused_with_their_reason() -> None:
    made = plan(workloads=("pp8", "pp8x4"))
    assert [names(group) for group in made.groups] == [["pp8"]]
    [(case, support)] = made.refused
    assert (case.workload.name, support.reason) == ("pp8x4", "NOT_UPSTREAM")


def test_order_is_random_by_seed_and_launch_only() -> None:
    workloads = tuple(f"pp{n}" for n in range(1, 9))
    first = plan(workloads=workloads, seed=1).groups[0]
    assert names(first) == names(plan(workloads=workloads[::-1], seed=1).groups[0])
    assert names(first) != names(plan(workloads=workloads, seed=2).groups[0])
    assert names(first) == names(shuffled(first, 1, 0)) != names(shuffled(first, 1, 1))
    assert sorted(names(first)) == sorted(workloads)


@given(prompt=st.integers(1, 3000), new=st.integers(1, 1000), context=st.integers(256, 5000))
def test_capacity_holds_the_workload_within_the_context(prompt: int, new: int, context: int) -> None:
    workload, arch = parse_workload(f"{prompt}/{new}"), replace(ARCH, context=context)
    if workload.positions > context:
        with pytest.raises(UsageError, match=rf"tiny has a context of {context} tokens.* needs {workload.positions}"):
            kv_capacity(workload, arch, "tiny")
        return
    capacity = kv_capacity(workload, arch, "tiny")
    assert workload.positions <= capacity <= context
    assert capacity == context or (capacity & (capacity - 1) == 0 and capacity >= 1024)


@pytest.mark.parametrize(("text", "capacity"), [("tg1", 1024), ("pp1024", 1024), ("pp1025", 2048), ("pp2049", 4096)])
def test_capacity(text: str, capacity: int) -> None:
    assert kv_capacity(parse_workload(text), replace(ARCH, context=1 << 20), "tiny") == capacity


def test_a_prompt_beyond_the_context_is_an_error() -> None:
    with pytest.raises(UsageError, match="tiny has a context of 4096 tokens, workload pp4097 needs 4097"):
        plan(workloads=("pp4097",))


def test_options_are_parsed_as_the_adapter_declares_and_completed() -> None:
    given = {"threads": "4", "fast": "yes"}
    made = plan(options=given).groups[0].first.options
    assert made == {"threads": 4, "dialect": "a", "fast": True, "share": 0.5}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("thread", "4", r"backend fake: unknown option 'thread' \(nearest: threads\).*dialect \(form of the graph\)"),
        ("threads", "four", "'four' is not a whole number"),
        ("threads", "4.5", "not a whole number"),
        ("threads", "0", "option threads: 0 is too few.*give at least 1"),
        ("threads", "-3", "-3 is too few"),
        ("dialect", "c", "choices: a, b"),
        ("fast", "maybe", "not true or false"),
        ("share", "nan", "not a number"),
    ],
)
def test_wrong_options_name_what_there_is(key: str, value: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_options("fake", Adapter().options, {key: value})


def test_a_backend_without_options_says_so() -> None:
    with pytest.raises(UsageError, match="takes no options"):
        parse_options("fake", {}, {"threads": "1"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"launches": 0}, "--launches"),
        ({"repetitions": 0}, "--repetitions"),
        ({"workloads": ()}, "--workload"),
        ({"models": ("tinny-int8",)}, "tiny-int8"),
    ],
)
def test_requests_out_of_range(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan(**given)


def test_a_provider_is_only_for_backends_that_have_them() -> None:
    with pytest.raises(UsageError, match="backend fake has no execution providers"):
        plan(provider="CPUExecutionProvider")
    request = Request(backends=("fake",), models=("tiny-int8",), workloads=("pp8",))
    own = {"fake": cast(Backend, Adapter(provider="Own"))}
    assert make_plan(request, CATALOG, own).groups[0].first.provider == "Own"
    assert make_plan(replace(request, provider="Other"), CATALOG, own).groups[0].first.provider == "Other"


def test_case_keys_depend_on_every_part_and_on_no_process() -> None:
    case = plan(workloads=("pp8",), options={"threads": "2"}).groups[0].first
    others = [
        replace(case, scheme="int4"),
        replace(case, arch=replace(ARCH, norm_eps=1e-6)),
        replace(case, options={**case.options, "threads": 3}),
        replace(case, workload=replace(case.workload, chunk=256)),
        replace(case, device="0"),
    ]
    assert len({case_key(case), *map(case_key, others)}) == 6
    code = (
        "from tests.unit.test_plan import plan, case_key\n"
        "print(case_key(plan(workloads=('pp8',), options={'threads': '2'}).groups[0].first))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == case_key(case)


def test_grouping_keeps_every_case() -> None:
    cases = [case for group in plan(workloads=("pp8", "tg8", "pp2000")).groups for case in group.cases]
    assert sorted(map(case_key, cases)) == sorted(case_key(case) for g in group_cases(cases) for case in g.cases)


@pytest.mark.parametrize(("scheme", "bits"), [("int8", 8.5), ("fp16", 16), ("bf16", 16)])
def test_weight_bytes(scheme: str, bits: float) -> None:
    assert weight_bytes(ARCH, scheme) == pytest.approx(parameters(ARCH) * bits / 8, rel=1e-3)


def test_int4_keeps_embedding_and_lm_head_in_eight_bits() -> None:
    untied = replace(ARCH, tied=False)
    assert weight_bytes(untied, "int4") - weight_bytes(ARCH, "int4") == 1024 * 64 * 8.5 / 8


def estimated(group: Any = None, adapter: Adapter | None = None, **given: Any) -> Estimate:
    rates: dict[str, Any] = {"read_bytes_per_s": 1e9, "flops": 1e9, "repetitions": 5, **given}
    return estimate(group or plan().groups[0], cast(Backend, adapter or Adapter()), **rates)


def test_estimate() -> None:
    group = plan(workloads=("tg128x2",)).groups[0]
    small = estimated(group)
    assert small.kv_bytes == 2 * 2 * 32 * 1024 * 2 * 4
    assert small.logits_bytes == 32 * 2 * 1024 * 4
    assert small.disk_bytes == 2 * weight_bytes(ARCH, "int8")
    assert estimated(group, read_bytes_per_s=5e8).minutes > small.minutes > 0
    assert estimated(group, launches=3).minutes > small.minutes
    assert estimated(group, launches=3).launch_s == small.launch_s


def test_memory_is_what_the_runtime_makes_of_the_file() -> None:
    needed, weights = estimated(), weight_bytes(ARCH, "int8")
    beside = needed.kv_bytes + needed.logits_bytes + RUNTIME_BYTES
    assert needed.host_bytes == pytest.approx(2.0 * weights * LOAD_SHARE + beside, abs=1)


def test_a_backend_without_a_model_needs_nothing() -> None:
    nothing = estimated(adapter=Adapter(computes=False))
    assert (nothing.disk_bytes, nothing.kv_bytes, nothing.minutes) == (0, 0, 0.0)


def test_a_launch_takes_its_budget_at_least() -> None:
    group = plan(workloads=("pp8", "tg8")).groups[0]
    assert estimated(group, adapter=Adapter(computes=False), budget_s=60.0).launch_s == 120
    assert estimated(group, budget_s=60.0).launch_s > 120
    assert estimated(group, budget_s=1e-9).launch_s == estimated(group).launch_s


def test_what_does_not_fit_is_refused_with_numbers_and_remedy() -> None:
    check_disk(1000, 1000, where="x")
    check_memory(1000, 1000, where="x")
    check_memory(1000, None, where="x")
    with pytest.raises(PrerequisiteError, match=r"needs 1.* of disk, 0 B are free; .*prune"):
        check_disk(1000, 0, where="x")
    with pytest.raises(PrerequisiteError, match=r"needs 1.* of memory, 999 B are available"):
        check_memory(1000, 999, where="x")
