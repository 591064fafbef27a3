"""The workflows of docs/ci: read, held against the rules of docs/ci.md, and their scripts executed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CI = Path(__file__).parents[1] / "docs" / "ci"
WORKFLOWS = sorted((CI / "workflows").glob("*.yml"))

PINNED = re.compile(r"actions/(checkout|upload-artifact)@[0-9a-f]{40}")
FETCHES_CODE = re.compile(r"\bgit\b|\bgh (pr|repo|run download)\b|\bcurl\b|\bwget\b")
SUMMARY_BYTES = 60_000
HOSTED_MINUTES, SELF_HOSTED_MINUTES = 6 * 60, 5 * 24 * 60
"""GitHub's own limits of a job."""

Job = dict[str, Any]


def read(text: str) -> dict[str, Any]:
    """A workflow's tables, with its triggers as `on`, which YAML 1.1 takes for a truth value."""
    found: dict[Any, Any] = yaml.safe_load(text)
    found["on"] = found.pop(True, None) or {}
    return found


def script(workflow: str, job: str, step: str) -> str:
    """What the step of that name or id executes."""
    steps = read((CI / "workflows" / workflow).read_text(encoding="utf-8"))["jobs"][job]["steps"]
    (found,) = [each["run"] for each in steps if step in (each.get("name"), each.get("id"))]
    return str(found)


def execute(text: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A step's script as a runner executes it under `shell: bash`, in `folder`; `folder/stubs` goes before the PATH."""
    file = folder.with_name(f"{folder.name}-step.sh")
    file.write_text(text, encoding="utf-8")
    path = os.pathsep.join([str(folder / "stubs"), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(file)],
        cwd=folder,
        env={**os.environ, "PATH": path, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def stub(folder: Path, name: str, text: str) -> None:
    """An executable of that name that is found first."""
    file = folder / "stubs" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
    file.chmod(0o755)


def faults(text: str) -> Iterator[str]:
    """What of a workflow breaks a rule."""
    workflow = read(text)
    on, jobs = workflow["on"], workflow["jobs"]
    own = [name for name, job in jobs.items() if "self-hosted" in str(job["runs-on"])]
    if workflow.get("permissions") != {}:
        yield "permissions are not none for jobs that ask for none"
    concurrency = workflow.get("concurrency", {})
    if not concurrency.get("group") or concurrency.get("cancel-in-progress") is not False:
        yield "no concurrency group that lets a measurement end"
    if workflow.get("defaults") != {"run": {"shell": "bash"}}:
        yield "a script without pipefail"
    if "secrets." in text:
        yield "a secret"
    if own and not set(on) <= {"schedule", "workflow_dispatch"}:
        yield "a machine of the lab by an event that others cause"
    for uses in re.findall(r"^.*\buses:.*$", text, re.M):
        if not re.search(PINNED.pattern + r" # v\d+\.\d+\.\d+$", uses):
            yield f"an action that is not pinned, not told or not needed: {uses.strip()}"
    for name, job in jobs.items():
        for fault in _of_job(job, name in own, "pull_request_target" in on):
            yield f"{name}: {fault}"
    for name in own:
        if not _reviewed(jobs, name):
            yield f"{name}: nothing holds it to the default branch"


def _of_job(job: Job, own: bool, of_strangers: bool) -> Iterator[str]:
    permissions = job.get("permissions")
    if not isinstance(permissions, dict):
        yield "permissions are not said"
        permissions = {}
    if own and set(permissions.values()) - {"read"}:
        yield "a machine of the lab that may write"
    if not 0 < job.get("timeout-minutes", 0) <= (SELF_HOSTED_MINUTES if own else HOSTED_MINUTES):
        yield "no time limit that GitHub would keep"
    if of_strangers and own:
        yield "a machine of the lab for whoever opens a pull request"
    for step in job["steps"]:
        uses, run = step.get("uses", ""), step.get("run", "")
        if of_strangers and (uses or FETCHES_CODE.search(run)):
            yield "code is fetched for whoever opens a pull request"
        kept = (step.get("with") or {}).get("persist-credentials")
        if "checkout" in uses and kept is not False and not (kept is True and permissions.get("contents") == "write"):
            yield "a token stays in the checkout"
        if "upload-artifact" in uses and step.get("if") != "always()":
            yield "what was measured before a failure is lost"
        if "${{" in run:
            yield "an expression becomes part of a script"
        for line in run.splitlines():
            cut = re.search(r"^head --bytes=(\d+) ", line)
            if "GITHUB_STEP_SUMMARY" in line and not (cut and int(cut[1]) <= SUMMARY_BYTES):
                yield "a summary of any size"


def _reviewed(jobs: dict[str, Job], name: str) -> bool:
    """Whether this job, or one that it needs, is executed for the default branch only."""
    needs = jobs[name].get("needs", [])
    earlier = [needs] if isinstance(needs, str) else needs
    here = "github.event.repository.default_branch" in str(jobs[name].get("if"))
    return here or any(_reviewed(jobs, each) for each in earlier)
