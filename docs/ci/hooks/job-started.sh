#!/bin/bash
# A machine's own gate, before the first step of any job: only these workflow files, only on their branch, never as root.
# It is root's file, outside of the runner's folders, and the runner's .env names it: docs/ci.md.
set -u
allowed=/etc/evenbench/workflows # lines OWNER/REPOSITORY/.github/workflows/FILE@refs/heads/BRANCH

# A hook that only fails does not stop steps with `if: always()` (actions/runner#2811): what called it is ended too.
refuse() {
    echo "::error::refused by this machine: $1"
    logger --tag evenbench-runner "refused: $1"
    kill -KILL "$PPID"
    exit 1
}

workflow=${GITHUB_WORKFLOW_REF:-a job without a workflow}
[ "$(id -u)" -ne 0 ] || refuse "its runner must not be root"
grep --quiet --fixed-strings --line-regexp -e "$workflow" "$allowed" || refuse "$workflow is not in $allowed"
