#!/bin/sh
# Makes the virtual environment .venv beside this file and installs bitinfer into it.
#
#     sh bootstrap.sh [EXTRA[,EXTRA]...]        extras: serve, batch, ray, test, numba, train, bench, dev
#
# It may be run any number of times.  PYTHON names the interpreter (default: the first of python3,
# python3.11, python3.12, ... that is new enough).  Debian and Ubuntu ship Python without what venv
# needs: as root this script installs their package for it, otherwise it says which one is missing.
set -eu
cd "$(dirname "$0")"

say() {
    echo "bootstrap.sh: $*" >&2
}

fail() {
    echo "bootstrap.sh: $*" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3 python3.11 python3.12 python3.13 python3.14
    fi
    for name in "$@"; do
        if is_new_enough "$name"; then
            echo "$name"
            return
        fi
    done
    fail "no Python of at least 3.11 among: $*"
}

has_ensurepip() {
    "$1" -c 'import ensurepip' 2>/dev/null
}

make_environment() {
    python=$(find_python)
    if ! has_ensurepip "$python"; then
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
            fail "$python has no ensurepip; install it (on Debian, as root: apt install $package)"
        fi
        say "installing the Debian package $package"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$package"; } >&2 ||
            fail "cannot install $package"
    fi
    say "making the virtual environment .venv with $python"
    "$python" -m venv .venv || fail "cannot make .venv; remove it and run this again"
}

case $PWD in
    *[][]*) fail "the path of the checkout holds brackets, which pip takes for extras; rename it" ;;
esac

# An environment without pip is what an earlier attempt left behind.
.venv/bin/python -m pip --version >/dev/null 2>&1 || make_environment
is_new_enough .venv/bin/python || fail ".venv has a Python older than 3.11; remove .venv"

say "installing bitinfer${1:+ with $1} into .venv: downloading what it needs, compiling its kernels"
say "this takes about a minute, with the extra train several"
# In a terminal pip shows how far it is.
[ -t 2 ] && quiet= || quiet=--quiet
.venv/bin/python -m pip install $quiet --disable-pip-version-check ".${1:+[$1]}"
.venv/bin/python - >&2 <<'END'
from bitinfer import __version__, backends

print(f"bootstrap.sh: bitinfer {__version__} is in .venv, backend {backends.select().label}")
for status in backends.status():
    if status.name == "native" and not status.available:
        print(f"bootstrap.sh: without the native backend: {status.reason}")
END
