# Sourced by every script here: finds a Python, makes or reuses the virtual environment, installs what is
# missing. Leaves `$root` and `$venv` set, and the environment's commands first on the PATH.
# H3LAB_VENV names another place for the environment; PYTHON another interpreter to make it with.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${H3LAB_VENV:-$root/.venv}"

say() { printf '==> %s\n' "$*" >&2; }
stop() { printf '\n%s\n' "$@" >&2; exit 1; }

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

choose_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        is_recent "$PYTHON" || stop "PYTHON=$PYTHON is not a Python 3.11 or newer that starts. Unset PYTHON, or name another one."
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3.11 python3; do # trying it, not finding it: a version manager's shim may refuse to start
        if is_recent "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    stop "h3lab needs Python 3.11 or newer, and neither python3.11 nor python3 is one." \
        "Debian 12 and newer: apt-get install python3 python3-venv. Elsewhere: PYTHON=/path/to/python $0"
}

# install_debian REASON PACKAGE... : by apt-get where that is allowed; else says what to type, and ends.
install_debian() {
    local reason="$1" become=()
    shift
    command -v apt-get >/dev/null || stop "$reason Install with your system's package tool what Debian calls: $*"
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || stop "$reason Please run: sudo apt-get install $*"
        become=(sudo -n)
    fi
    say "$reason Installing Debian's $*"
    "${become[@]}" apt-get update -q >&2
    "${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "$@" </dev/null >&2
}

make_environment() {
    local python version
    python="$(choose_python)"
    version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    # Debian's python3 has venv without what fills one, and would leave half an environment behind.
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        install_debian "$python cannot make virtual environments." "python$version-venv"
    fi
    say "Making a virtual environment of Python $version in $venv"
    "$python" -m venv --clear "$venv"
}

# What the tests need is two minutes of downloads more than what the demo needs: `extras` is set by who sources this.
every=torch,webhdfs,s3,sql,lab,test,dev
extras="${extras:-$every}"

# What an environment was filled from. Where it differs the environment is filled again: the same versions
# install in a second, and everything up to date costs one start of Python.
wanted_stamp() {
    "$venv/bin/python" -c 'import sys; print(sys.version)'
    printf '%s\n%s\n' "$root" "$1"
    cat "$root/setup.py" "$root/constraints.txt" | cksum
}

is_current() { # an environment with everything is good for less too
    local stamp
    [ -x "$venv/bin/python" ] && is_recent "$venv/bin/python" && stamp="$(cat "$venv/.h3lab-stamp" 2>/dev/null)" \
        && { [ "$(wanted_stamp "$extras")" = "$stamp" ] || [ "$(wanted_stamp "$every")" = "$stamp" ]; }
}

fill_environment() {
    local pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$root/constraints.txt")
    say "Installing h3lab and the pinned packages of constraints.txt (a few minutes the first time)"
    "${pip[@]}" setuptools wheel # pinned like the rest, and so h3lab is built with them instead of fresh copies
    "${pip[@]}" --no-build-isolation --editable "$root[$extras]"
    wanted_stamp "$extras" >"$venv/.h3lab-stamp"
}

prepare_environment() {
    if is_current; then return; fi
    if ! is_recent "$venv/bin/python"; then make_environment; fi
    fill_environment
}

# Two scripts started together fill one environment once; the lock is on the folder, so it leaves no file.
if ! is_current; then
    if command -v flock >/dev/null; then
        ( flock 9; prepare_environment ) 9<"$root"
    else
        prepare_environment
    fi
fi

export PATH="$venv/bin:$PATH" VIRTUAL_ENV="$venv"
unset PYTHONHOME
