# Sourced by the scripts beside it, which set `root`: `ensure EXTRA...` makes .venv hold this project and those extras.
# shellcheck shell=sh disable=SC2154

venv=$root/.venv

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$@"
    exit 3
}

# What must be installed anew when it changes. The path counts: an environment cannot be moved.
fingerprint() { { printf '%s\n' "$root"; cat "$root/pyproject.toml" "$root/constraints.txt"; } | cksum; }

# Names of those extras of "$@" (and of the project itself) that are not installed as committed now.
missing() {
    now=$(fingerprint)
    for extra in base "$@"; do
        [ -x "$venv/bin/bench" ] && [ "$(cat "$venv/installed-$extra" 2>/dev/null)" = "$now" ] || printf '%s ' "$extra"
    done
}

check_python() {
    command -v "$python" >/dev/null || fail "$python: not found; install Python 3.10 or newer, or set PYTHON to one"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "$python is $("$python" -V 2>&1): too old; set PYTHON to a Python 3.10 or newer"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python has no venv module; install it (Debian, Ubuntu: apt install python3-venv)"
}

# llama.cpp has no wheels: it is compiled here, without the parts that read images.
export CMAKE_ARGS="${CMAKE_ARGS:--DLLAVA_BUILD=OFF}"

check_compiler() {
    case " $* " in *" llamacpp "*) ;; *) return 0 ;; esac
    command -v c++ >/dev/null || fail "c++: not found; llama.cpp is compiled here (Debian, Ubuntu: apt install g++)"
    say "llama.cpp is compiled where pip has not kept it: about 5 minutes on 2 cores"
}

# One line that is overwritten on a terminal, nothing elsewhere.
progress() {
    while IFS= read -r line; do
        if [ -t 2 ]; then printf '\r\033[K  %.76s' "$line" >&2; fi
    done
    if [ -t 2 ]; then printf '\r\033[K' >&2; fi
}

install() {
    check_compiler "$@"
    log=$venv/install.log
    extras=$(printf '%s' "$*" | sed 's/base *//; s/  */,/g; s/,$//')
    say "installing evenbench${extras:+ with $extras} into $venv"
    if ! "$python" -m venv "$venv" >"$log" 2>&1; then
        cat "$log" >&2
        fail "$python -m venv failed: its output stands above"
    fi
    {
        cd "$root" && PIP_USER=0 "$venv/bin/python" -m pip --disable-pip-version-check install --no-input \
            --constraint constraints.txt --editable ".${extras:+[$extras]}" 2>&1 || printf 'failed\n' >"$venv/failed"
    } </dev/null | tee "$log" | progress
    if [ -e "$venv/failed" ]; then
        rm -f "$venv/failed"
        cat "$log" >&2
        fail "pip failed: its output stands above, and in $log"
    fi
    for extra in "$@"; do fingerprint >"$venv/installed-$extra"; done
}

ensure() {
    [ -z "$(missing "$@")" ] && return
    python=${PYTHON:-python3}
    check_python
    mkdir -p "$venv" || fail "$venv: cannot be made; is the checkout writable?"
    (
        if command -v flock >/dev/null; then
            flock -n 9 || { say "waiting for another installation into $venv"; flock 9; }
        fi
        # shellcheck disable=SC2046  # words are meant
        set -- $(missing "$@")
        [ $# -eq 0 ] || install "$@"
    ) 9>"$venv/lock" || exit
}
