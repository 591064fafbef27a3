"""What the workflows of docs/ci execute, executed here: gates before a fake GitHub, the push against a real git."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.workflows import CI, SUMMARY_BYTES, execute, script, stub

SHA = "3d3c42e5aac5ba805825da76410c181273ba90b1"
OTHER = SHA.replace("3d", "3e")

FIRST_GATE = script("pull-request.yml", "authorise", "Authorise exactly this commit")
SECOND_GATE = script("measure-commit.yml", "authorise", "Check again that this commit is approved")
APPROVED = {"LABEL": f"bench:{SHA}", "SHA": SHA, "NUMBER": "12", "WHO": "ada", "BRANCH": "main", "MAY": "write"}
OPEN = {"NUMBER": "12", "SHA": SHA, "TOLD": f"open\n{SHA}\nbug\nbench:{SHA}"}

GH = r"""
printf '%q ' "$@" >>"$NOTES"; echo >>"$NOTES"
case "$*" in
    *collaborators*) [ "$MAY" != unknown ] || exit 1; echo "$MAY" ;;
    *pulls*) [ "$TOLD" != unknown ] || exit 1; echo "$TOLD" ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A runner's working folder, with a `gh` that answers what $MAY and $TOLD say and notes what it was asked."""
    folder = tmp_path / "work"
    stub(folder, "gh", GH)
    stub(folder, "sleep", "exit 0")
    return folder


def gate(text: str, folder: Path, **env: str) -> tuple[int, list[str]]:
    """Its exit code, and what it asked GitHub for."""
    notes = folder / "notes"
    notes.unlink(missing_ok=True)
    done = execute(text, folder, GITHUB_REPOSITORY="lab/bench", NOTES=str(notes), **env)
    assert sorted(path.name for path in folder.iterdir() if path != notes) == ["stubs"]
    return done.returncode, notes.read_text().splitlines() if notes.exists() else []


def test_an_approved_commit_is_dispatched(folder: Path) -> None:
    code, asked = gate(FIRST_GATE, folder, **APPROVED)
    assert code == 0
    assert asked == [
        "api repos/lab/bench/collaborators/ada/permission --jq .permission ",
        f"workflow run measure-commit.yml --repo lab/bench --ref main --raw-field number=12 --raw-field sha={SHA} ",
    ]
    assert gate(FIRST_GATE, folder, **{**APPROVED, "MAY": "admin"})[0] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"LABEL": f"bench:{OTHER}"},
        {"LABEL": f"bench:{SHA[:12]}"},
        {"LABEL": f"bench:{SHA}0"},
        {"LABEL": "bench:*"},
        {"LABEL": "bench:", "SHA": ""},
        {"LABEL": "bench:main", "SHA": "main"},
        {"SHA": OTHER},
        {"MAY": "read"},
        {"MAY": "none"},
        {"MAY": "unknown"},
        {"MAY": ""},
        {"WHO": "robot[bot]"},
        {"WHO": "../../../user"},
    ],
    ids=str,
)
def test_everything_else_is_refused(wrong: dict[str, str], folder: Path) -> None:
    code, asked = gate(FIRST_GATE, folder, **{**APPROVED, **wrong})
    assert code != 0
    assert not [line for line in asked if line.startswith("workflow run")]


SHELL = st.text(st.sampled_from("$(`){}[]*?;&|<>\"'\\ \n\tab:0~#!%=-./"), max_size=60)


@given(label=SHELL, head=SHELL, who=SHELL)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_strangers_write_stays_text(label: str, head: str, who: str, folder: Path) -> None:
    code, asked = gate(FIRST_GATE, folder, **{**APPROVED, "LABEL": label, "SHA": head, "WHO": who})
    assert code != 0
    assert not asked


@pytest.mark.parametrize(
    ("wrong", "refused"),
    [
        ({}, False),
        ({"TOLD": f"closed\n{SHA}\nbench:{SHA}"}, True),
        ({"TOLD": f"open\n{OTHER}\nbench:{SHA}"}, True),
        ({"TOLD": f"open\n{SHA}\nbench:{OTHER}"}, True),
        ({"TOLD": f"open\n{SHA}\nxbench:{SHA}"}, True),
        ({"TOLD": f"open\n{SHA}"}, True),
        ({"TOLD": ""}, True),
        ({"TOLD": "unknown"}, True),
        ({"SHA": SHA[:12], "TOLD": f"open\n{SHA[:12]}\nbench:{SHA[:12]}"}, True),
        ({"NUMBER": "12/../../secrets"}, True),
        ({"NUMBER": "-1"}, True),
    ],
    ids=str,
)
def test_the_second_gate_asks_again(wrong: dict[str, str], refused: bool, folder: Path) -> None:
    code, _ = gate(SECOND_GATE, folder, **{**OPEN, **wrong})
    assert (code != 0) is refused


def bench(folder: Path, text: str) -> None:
    """What stands in for scripts/bench of the checkout."""
    stub(folder, "bench", text)
    scripts = folder / "evenbench" / "scripts"
    scripts.mkdir(parents=True)
    (folder / "stubs" / "bench").rename(scripts / "bench")


MERGE = """
case "$*" in "results merge "*" --results .") ;; *) exit 64 ;; esac
for source in "${@:3:$#-4}"; do cp --recursive "$source/launches" .; done
touch .merging.lock
"""
"""What `bench results merge` does to stores without damage."""


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=results"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def record(root: Path, name: str) -> None:
    path = root / "launches" / "2026" / "11" / name / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text(name)


@pytest.fixture
def branch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The branch `results` at its origin, with one record; `history` is its checkout."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    origin = folder.with_name("origin")
    git(folder.parent, "init", "--bare", "--quiet", "origin")
    git(folder, "clone", "--quiet", str(origin), "history")
    record(folder / "history", "old")
    git(folder / "history", "add", "--all")
    git(folder / "history", "commit", "--quiet", "-m", "first")
    git(folder / "history", "push", "--quiet", "origin", "HEAD:results")
    return origin


PUSH = script("nightly.yml", "publish", "Push")
RACE = """
git clone --quiet ORIGIN other && cd other
echo >>"racer" && git add racer
git -c user.name=x -c user.email=x@x commit --quiet -m race && git push --quiet origin HEAD:results
cd .. && rm -rf other
"""
"""Another push, between the merge and ours."""


def published(branch: Path) -> list[str]:
    names = git(branch, "ls-tree", "-r", "--name-only", "results").split()
    return [name.removeprefix("launches/2026/11/").removesuffix("/record.json") for name in names]


def test_nights_of_all_machines_are_pushed(folder: Path, branch: Path) -> None:
    bench(folder, MERGE)
    for label in ("epyc", "a b"):
        record(folder / "nights" / f"night-{label}" / "results", label.replace(" ", "-"))
    assert execute(PUSH, folder, GITHUB_RUN_ID="7").returncode == 0
    assert published(branch) == ["a-b", "epyc", "old"]  # and no lock
    assert git(branch, "log", "--format=%s %an", "results").splitlines()[0] == "Night 7 github-actions[bot]"
    assert execute(PUSH, folder, GITHUB_RUN_ID="8").returncode == 0  # nothing new
    assert "Night 8" not in git(branch, "log", "--format=%s", "results")


def test_a_lost_race_loses_nothing(folder: Path, branch: Path) -> None:
    once = f"[ ! -e {folder}/raced ] || exit 0; touch {folder}/raced"
    bench(folder, MERGE + once + RACE.replace("ORIGIN", str(branch)))
    record(folder / "nights" / "night-epyc" / "results", "epyc")
    assert execute(PUSH, folder, GITHUB_RUN_ID="7").returncode == 0
    assert published(branch) == ["epyc", "old", "racer"]


def test_a_race_always_lost_is_told(folder: Path, branch: Path) -> None:
    bench(folder, MERGE + RACE.replace("ORIGIN", str(branch)))
    record(folder / "nights" / "night-epyc" / "results", "epyc")
    done = execute(PUSH, folder, GITHUB_RUN_ID="7")
    assert done.returncode == 1
    assert "::error::" in done.stdout
    assert published(branch) == ["old", "racer"]
    assert len(git(branch, "log", "--format=%s", "results").splitlines()) == 7


@pytest.mark.parametrize(("code", "pushed"), [(6, True), (2, False), (70, False)])
def test_damage_is_told_once_the_rest_is_pushed(code: int, pushed: bool, folder: Path, branch: Path) -> None:
    bench(folder, f"{MERGE}exit {code}")
    record(folder / "nights" / "night-epyc" / "results", "epyc")
    assert (execute(PUSH, folder, GITHUB_RUN_ID="7").returncode == code) is pushed
    assert ("epyc" in published(branch)) is pushed


def test_no_night_is_no_commit(folder: Path, branch: Path) -> None:
    (folder / "nights" / "night-epyc" / "report").mkdir(parents=True)
    assert execute(PUSH, folder, GITHUB_RUN_ID="7").returncode == 0
    assert published(branch) == ["old"]


def test_only_what_the_branch_lacks_is_collected(folder: Path, branch: Path) -> None:
    bench(folder, MERGE)
    store, temporary = folder / "store", folder / "temporary"
    record(store, "old")
    record(store, "new")
    text = script("nightly.yml", "measure", "Collect what the branch lacks")
    assert execute(text, folder, BENCH_RESULTS=str(store), RUNNER_TEMP=str(temporary)).returncode == 0
    files = [path for path in (temporary / "night" / "results").rglob("*") if path.is_file()]
    assert [path.read_text() for path in files] == ["new"]


@pytest.mark.parametrize(("code", "goes_on"), [(0, True), (6, True), (2, False)])
def test_damage_costs_no_night(code: int, goes_on: bool, folder: Path) -> None:
    bench(folder, f"exit {code}")
    text = script("nightly.yml", "measure", "Take what others measured, acknowledged and put into quarantine")
    assert (execute(text, folder).returncode == 0) is goes_on


@pytest.mark.parametrize(("workflow", "report"), [("nightly.yml", "night/report"), ("measure-commit.yml", "report")])
def test_the_verdict_is_the_exit_code_of_the_step(workflow: str, report: str, folder: Path) -> None:
    bench(folder, 'printf "%s\\n" "$@"; exit 10')
    stub(folder, "git", f"echo {SHA}")
    text = script(workflow, "measure", "Measure")
    done = execute(text, folder, RUNNER_TEMP=str(folder), LABEL="epyc", SHA=SHA)
    assert done.returncode == 10
    told = (folder / report / "summary.json").read_text().splitlines()
    assert told[2:5] == ["--label", "epyc", "--json"]
    assert str(folder / report / "summary.md") in told
    if workflow == "measure-commit.yml":  # another commit was checked out: nothing of it is executed
        (folder / report / "summary.json").unlink()
        assert execute(text, folder, RUNNER_TEMP=str(folder), LABEL="epyc", SHA=OTHER).returncode == 1
        assert not (folder / report / "summary.json").exists()


@pytest.mark.parametrize("workflow", ["nightly.yml", "measure-commit.yml"])
def test_a_job_summary_is_cut(workflow: str, folder: Path) -> None:
    report = folder / ("night/report" if workflow == "nightly.yml" else "report") / "summary.md"
    report.parent.mkdir(parents=True)
    report.write_text("x" * 2_000_000)
    shown = folder / "shown"
    text = script(workflow, "measure", "Job summary")
    assert execute(text, folder, RUNNER_TEMP=str(folder), GITHUB_STEP_SUMMARY=str(shown)).returncode == 0
    assert shown.stat().st_size == SUMMARY_BYTES


@pytest.mark.parametrize(("workflow", "job"), [("nightly.yml", "plan"), ("measure-commit.yml", "authorise")])
def test_the_matrix_is_one_line(workflow: str, job: str, folder: Path) -> None:
    bench(folder, """printf '{"include": [\\n{"label": "epyc"}]}\\n'; exit "${CODE:-0}" """)
    shutil.copytree(folder / "evenbench" / "scripts", folder / "scripts")
    output, text = folder / "output", script(workflow, job, "matrix")
    assert execute(text, folder, GITHUB_OUTPUT=str(output)).returncode == 0
    assert output.read_text() == 'matrix={"include": [{"label": "epyc"}]}\n'
    assert execute(text, folder, GITHUB_OUTPUT=str(output), CODE="2").returncode == 2


WORKFLOW = "lab/bench/.github/workflows/nightly.yml@refs/heads/main"


@pytest.mark.parametrize(
    ("workflow", "user", "goes_on"),
    [
        (WORKFLOW, "1000", True),
        (WORKFLOW, "0", False),
        (WORKFLOW.replace("main", "other"), "1000", False),
        (WORKFLOW + "2", "1000", False),
        (WORKFLOW.replace("nightly", "n.*"), "1000", False),
        ("", "1000", False),
    ],
)
def test_a_machine_refuses_other_workflows(workflow: str, user: str, goes_on: bool, folder: Path) -> None:
    """What started the hook is ended: it would go on to the steps that are executed whatever failed."""
    allowed = folder / "workflows"
    allowed.write_text(f"lab/bench/.github/workflows/measure-commit.yml@refs/heads/main\n{WORKFLOW}\n")
    stub(folder, "id", f"echo {user}")
    stub(folder, "logger", f'echo "$*" >>"{folder}/log"')
    hook = (CI / "hooks" / "job-started.sh").read_text().replace("/etc/evenbench/workflows", str(allowed))
    (folder / "hook.sh").write_text(hook)
    env = {"GITHUB_WORKFLOW_REF": workflow} if workflow else {}
    done = execute('bash -e hook.sh || true\necho "a step with if: always()"', folder, **env)
    assert ("a step" in done.stdout) is goes_on
    assert done.returncode == (0 if goes_on else -9)
    assert (folder / "log").exists() is not goes_on
