"""The workflows of docs/ci keep the rules of docs/ci.md, and the rules see what breaks them."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.cli import COMMANDS
from bench.spec import load_catalog
from tests.unit.test_docs import commands, long_options
from tests.workflows import CI, WORKFLOWS, faults, read

HERE = {"nightly", "results"} <= set(COMMANDS)
of_the_nightly = pytest.mark.xfail(not HERE, reason="bench nightly and bench results are not here yet", strict=True)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_keep_the_rules(path: Path) -> None:
    assert not list(faults(path.read_text(encoding="utf-8")))


def test_the_workflows_are_those_that_the_page_describes() -> None:
    page = (CI.parent / "ci.md").read_text(encoding="utf-8")
    assert {path.name for path in WORKFLOWS} == set(re.findall(r"\]\(ci/workflows/([\w-]+\.yml)\)", page))
    for file in ("actionlint.yaml", "nightly.toml", "hooks/job-started.sh"):
        assert f"](ci/{file})" in page and (CI / file).is_file()


CHECKOUT = "- uses: actions/checkout@" + "0" * 40 + " # v7.0.1\n"
PLANTED = {
    "permissions of all jobs": ("nightly", "permissions: {}", "permissions: write-all", "permissions are not none"),
    "permissions not said": ("pull-request", "    permissions:\n", "    unsaid:\n", "permissions are not said"),
    "a lab that may write": ("nightly", "contents: read\n    env:", "contents: write\n    env:", "lab that may write"),
    "cancelled by the next": ("nightly", "in-progress: false", "in-progress: true", "lets a measurement end"),
    "no group": ("measure-commit", "  group: measure-${{ inputs.sha }}\n", "", "no concurrency group"),
    "no pipefail": ("nightly", "shell: bash", "shell: sh", "without pipefail"),
    "a secret": ("nightly", "${{ github.token }}", "${{ secrets.PAT }}", "a secret"),
    "on every pull request": ("nightly", "  workflow_dispatch:", "  pull_request:", "others cause"),
    "by a tag": ("nightly", f"@{'3d3c42e5aac5ba805825da76410c181273ba90b1'} # v7.0.1", "@v7", "not pinned"),
    "of somebody else": ("nightly", "actions/upload-artifact@", "someone/upload-artifact@", "not needed"),
    "without its version": ("nightly", " # v7.0.1", "", "not told"),
    "no time limit": ("nightly", "    timeout-minutes: 600\n", "", "no time limit"),
    "longer than hosted": ("nightly", "timeout-minutes: 30", "timeout-minutes: 700", "no time limit"),
    "a token left": ("nightly", "persist-credentials: false", "persist-credentials: true", "token stays"),
    "a token by default": ("nightly", "          persist-credentials: false\n", "", "token stays"),
    "no branch asked": ("nightly", "    if: github.event_name", "    unless: github.event_name", "default branch"),
    "its code": (
        "pull-request",
        "      - name: Authorise",
        f"      {CHECKOUT}      - name: Authorise",
        "code is fetched",
    ),
    "its code by git": ("pull-request", "refuse() {", "git clone x; refuse() {", "code is fetched"),
    "its machine": ("pull-request", "ubuntu-24.04", "[self-hosted, linux]", "whoever opens a pull request"),
    "interpolated": ("pull-request", 'bench:$SHA"', 'bench:${{ github.event.x }}"', "part of a script"),
    "only if all went well": ("nightly", "if: always()\n        with:", "if: success()\n        with:", "is lost"),
    "a summary uncut": ("nightly", "head --bytes=60000", "cat", "any size"),
    "a summary too long": ("nightly", "--bytes=60000", "--bytes=2000000", "any size"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_the_rules_see(name: str) -> None:
    workflow, old, new, says = PLANTED[name]
    text = (CI / "workflows" / f"{workflow}.yml").read_text(encoding="utf-8")
    assert old in text
    assert [fault for fault in faults(text.replace(old, new)) if says in fault]


@of_the_nightly
def test_the_commands_of_the_workflows_exist() -> None:
    known = dict(commands())
    seen = set()
    for path in WORKFLOWS:
        for job in read(path.read_text(encoding="utf-8"))["jobs"].values():
            for line in "".join(step.get("run", "") for step in job["steps"]).replace("\\\n", " ").splitlines():
                if not (found := re.search(r"scripts/(bench [^|)>]*)", line)):
                    continue
                words = shlex.split(found[1])
                name = " ".join(words[: 3 if words[1] == "results" else 2])
                assert {word for word in words if word.startswith("--")} <= long_options(known[name]), line
                seen.add(name)
    assert seen == {"bench nightly", "bench results merge"}


@of_the_nightly
def test_the_plan_is_one() -> None:
    nightly = importlib.import_module("bench.nightly.plan")
    plan = nightly.read_plan(CI / "nightly.toml")
    nightly.check(plan.entries, load_catalog())
    assert [job["label"] for job in nightly.github_matrix(plan.entries)["include"]] == ["epyc", "h100"]


def tool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which(str(words[0])) is None:
        pytest.skip(f"{words[0]} is not installed")
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=120)


def test_actionlint_finds_nothing() -> None:
    done = tool("actionlint", "-config-file", CI / "actionlint.yaml", *WORKFLOWS)
    assert (done.returncode, done.stdout) == (0, "")


def test_actionlint_looks(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text(
        WORKFLOWS[0].read_text(encoding="utf-8").replace("needs.authorise.outputs", "needs.nobody.outputs")
    )
    assert "nobody" in tool("actionlint", "-config-file", CI / "actionlint.yaml", broken).stdout


def test_zizmor_finds_nothing() -> None:
    done = tool("zizmor", "--offline", "--no-progress", *WORKFLOWS)
    assert done.returncode == 0, done.stdout


def test_shellcheck_finds_nothing() -> None:
    done = tool("shellcheck", CI / "hooks" / "job-started.sh")
    assert (done.returncode, done.stdout) == (0, "")
