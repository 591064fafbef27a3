"""PLAN.toml: what is read, what is refused, and in which line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench.errors import UsageError
from bench.nightly import plan as module
from bench.nightly.plan import NightlyPlan, check, chosen, github_matrix, read_plan
from bench.plan import Request
from bench.spec import load_catalog

GOOD = """
[defaults]
model = "smollm2-135m-int8"
workload = ["pp512", "tg128"]
label = "epyc"
set = { threads = 2 }

[[case]]
backend = "onnx"

[[case]]
backend = ["onnx", "openvino"]
model = ["smollm2-135m-int8", "qwen3-0.6b-int4"]
workload = "chat"
device = "GPU.0"
provider = "X"
python = "/opt/python"
launches = 3
repetitions = 7
label = "arc"
allow_fallback = "5%"
set = { spin = true, name = "a b", share = 0.5 }

[confirm]
pairs = 16

[alert]
least_nights = 7
"""
CASE = '[[case]]\nbackend = "onnx"\nmodel = "smollm2-135m-int8"\n'


def read(tmp_path: Path, text: str) -> NightlyPlan:
    (tmp_path / "plan.toml").write_text(text)
    return read_plan(tmp_path / "plan.toml")


def test_all_of_a_plan(tmp_path: Path) -> None:
    plan = read(tmp_path, GOOD)
    first, second = plan.entries
    assert (plan.pairs, plan.least_nights) == (16, 7)
    assert first.request == Request(
        backends=("onnx",), models=("smollm2-135m-int8",), launches=5, repetitions=5, options={"threads": "2"}
    )
    assert second.request == Request(
        backends=("onnx", "openvino"),
        models=("smollm2-135m-int8", "qwen3-0.6b-int4"),
        workloads=("chat",),
        devices=("GPU.0",),
        provider="X",
        launches=3,
        repetitions=7,
        options={"spin": "true", "name": "a b", "share": "0.5"},
        allow_fallback=0.05,
    ), "a case's own key replaces that of the defaults, options too"
    assert [(e.number, e.label, e.python) for e in plan.entries] == [(1, "epyc", None), (2, "arc", "/opt/python")]
    assert second.title == "case 2: onnx,openvino smollm2-135m-int8,qwen3-0.6b-int4 chat"


def test_an_allowed_share_is_a_number_or_per_cent(tmp_path: Path) -> None:
    plan = read(tmp_path, f"[defaults]\nallow_fallback = 0.1\n{CASE}\n{CASE}allow_fallback = '2.5 %'\n")
    assert [entry.request.allow_fallback for entry in plan.entries] == [0.1, 0.025]


def test_a_plan_needs_no_more_than_a_case(tmp_path: Path) -> None:
    plan = read(tmp_path, CASE)
    (only,) = plan.entries
    assert (plan.pairs, plan.least_nights, only.label, only.request.launches) == (8, 5, None, 5)
    assert only.request.workloads == Request(backends=(), models=()).workloads


def test_the_plan_of_the_docstring_is_one(tmp_path: Path) -> None:
    shown = re.findall(r"^    (.*)\n|^()\n", module.__doc__ or "", re.M)
    assert read(tmp_path, "\n".join(line for line, _ in shown)).entries[0].label == "epyc"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "1 to 256 times [[case]]"),
        ("[case]\nbackend = 'onnx'", "1 to 256 times [[case]]"),
        ("case = [1]", "plan.toml: [[case]] 1: is no table"),
        ("[defaults]\n" + CASE + "a = = 1\n", "plan.toml:5: malformed TOML"),
        (CASE + "[default]\nx = 1", "unknown key 'default' (known: defaults, case, confirm, alert)"),
        ("defaults = 3\n" + CASE, "[defaults]: is no table"),
        (CASE + "launchs = 3", "plan.toml:1: [[case]] 1: unknown key 'launchs'"),
        (CASE + CASE.replace("onnx", "cpu") + "launches = 0", "plan.toml:7: [[case]] 2 launches: Expected `int` >= 1"),
        (CASE + "launches = true", "plan.toml:4: [[case]] 1 launches: Expected `int`, got `bool`"),
        (CASE + "launches = 1000", "plan.toml:4: [[case]] 1 launches: Expected `int` <= 100"),
        (CASE + "allow_fallback = 0", "plan.toml:4: [[case]] 1 allow_fallback: Expected `float` > 0"),
        (CASE + "allow_fallback = 1", "plan.toml:4: [[case]] 1 allow_fallback: Expected `float` < 1"),
        (CASE + "allow_fallback = nan", "plan.toml:4: [[case]] 1 allow_fallback: "),
        (CASE + "allow_fallback = true", "plan.toml:4: [[case]] 1 allow_fallback: Expected `float | str"),
        (
            CASE + 'allow_fallback = "100%"',
            "plan.toml:4: [[case]] 1 allow_fallback: '100%' is no share between 0 and 1",
        ),
        ('[defaults]\nallow_fallback = "x"\n' + CASE, "plan.toml:2: [defaults] allow_fallback: 'x' is no share"),
        (CASE + "repetitions = -1", "repetitions: Expected `int` >= 1"),
        (CASE + "set = { a = [1] }", "plan.toml:4: [[case]] 1 set: Expected"),
        (CASE + "set = { a = 2026-01-01 }", "plan.toml:4: [[case]] 1 set: Expected"),
        (CASE + 'label = "a b"', "plan.toml:4: [[case]] 1 label: Expected `str` matching"),
        (CASE + 'label = "${{ x }}"', "plan.toml:4: [[case]] 1 label: Expected `str` matching"),
        (CASE + 'label = "a\\n"', "plan.toml:4: [[case]] 1 label: Expected `str` matching"),
        (CASE + 'python = "a\\u0000"', "plan.toml:4: [[case]] 1 python: Expected `str` matching"),
        (CASE + "workload = []", "plan.toml:4: [[case]] 1 workload: Expected `array` of length >= 1"),
        (CASE + 'workload = "pp"', "plan.toml:4: [[case]] 1 workload: unknown workload 'pp'"),
        ('[defaults]\nworkload = "zz9"\n' + CASE, "plan.toml:2: [defaults] workload: unknown workload 'zz9'"),
        (f"[defaults]\nbackend = '{'x' * 201}'\n" + CASE, "plan.toml:2: [defaults] backend: Expected `str` of length"),
        ('[[case]]\nbackend = "onnx"', "plan.toml:1: [[case]] 1: names no model; write model there or in [defaults]"),
        ('[[case]]\nmodel = "smollm2-135m-int8"', "names no backend"),
        (CASE + CASE, "plan.toml:4: [[case]] 2: is case 1 again"),
        (CASE * 257, "1 to 256 times [[case]]"),
        (CASE + "[confirm]\npairs = 6", "plan.toml:5: [confirm] pairs: Expected `int` >= 7"),
        (CASE + "[alert]\nleast_nights = 2", "plan.toml:5: [alert] least_nights: Expected `int` >= 3"),
        (CASE + "[alert]\nnights = 2", "[alert]: unknown key 'nights' (known: least_nights)"),
        (CASE + f"launches = {'9' * 5000}", "malformed TOML: Exceeds the limit"),
        (CASE + f"device = {'[' * 5000}", "malformed TOML: maximum recursion"),
        (CASE + "#" * (1 << 20), "larger than 1048576 bytes"),
        (
            "[[case]]\n"
            + "".join(f"{key} = {[f'{key}{n}' for n in range(40)]}\n" for key in ("backend", "model"))
            + 'workload = "pp1"\n',
            "its lists multiply to more than 1024 cases",
        ),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert says in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "plan.toml"))
    assert "\n" not in str(caught.value)


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_plan(tmp_path / "plan.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        read_plan(tmp_path)


_KEYS = ["defaults", "case", "confirm", "alert", "backend", "model", "workload", "set", "label", "launches", "x"]
_VALUES = st.recursive(
    st.integers() | st.booleans() | st.sampled_from(["1.5", "nan", "inf", "2026-01-01"]) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=3),
    max_leaves=6,
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) and not re.fullmatch(r"[\d.-]+|nan|inf", value) else str(value)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text() | st.dictionaries(st.sampled_from(_KEYS), _VALUES).map(lambda t: "\n".join(
    f"{key} = {toml(value)}" for key, value in t.items())))  # fmt: skip
@example("case = [{ backend = 'onnx', model = 'm', set = { a = nan } }]")
def test_whatever_stands_there_is_a_plan_or_a_usage_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        plan = read_plan(tmp_path / "plan.toml")
    except UsageError as error:
        assert len(str(error)) < 2000
    else:
        assert plan.entries


def test_labels_choose(tmp_path: Path) -> None:
    plan = read(tmp_path, GOOD)
    assert [entry.number for entry in chosen(plan, ())] == [1, 2]
    assert [entry.number for entry in chosen(plan, ["arc"])] == [2]
    with pytest.raises(UsageError, match=r"unknown label 'epic' \(nearest: epyc\)"):
        chosen(plan, ["arc", "epic"])


def test_the_matrix_has_a_job_for_each_label(tmp_path: Path) -> None:
    more = GOOD + CASE.replace("onnx", "cpu") + 'label = "epyc"\n'
    assert github_matrix(read(tmp_path, more).entries) == {
        "include": [{"label": "epyc", "cases": 2}, {"label": "arc", "cases": 1}]
    }
    with pytest.raises(UsageError, match=r"plan.toml:1: \[\[case\]\] 1: has no label"):
        github_matrix(read(tmp_path, CASE).entries)


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (CASE.replace("onnx", "onx"), r"plan.toml:1: \[\[case\]\] 1: unknown backend 'onx' \(nearest: onnx"),
        (CASE.replace("135m-int8", "135n-int8"), r"plan.toml:1: \[\[case\]\] 1: unknown model"),
        (CASE + "set = { thread = 2 }", r"plan.toml:1: \[\[case\]\] 1: backend onnx: unknown option 'thread'"),
        (CASE + 'workload = "tg9999999"', r"plan.toml:1: \[\[case\]\] 1: smollm2-135m has a context"),
        (CASE.replace("onnx", "cpu") + 'provider = "X"', r"plan.toml:1: \[\[case\]\] 1: --provider: backend cpu"),
    ],
)
def test_what_a_night_would_trip_over_is_said_before(tmp_path: Path, case: str, says: str) -> None:
    plan = read(tmp_path, case)
    with pytest.raises(UsageError, match=says):
        check(plan.entries, load_catalog())


def test_a_good_plan_passes(tmp_path: Path) -> None:
    check(read(tmp_path, CASE + "set = { threads = 2 }").entries, load_catalog())
