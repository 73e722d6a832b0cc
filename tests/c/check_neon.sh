#!/usr/bin/env bash
# Runs the C test (check_kernels.c) on an emulated 64-bit Arm CPU: bash tests/c/check_neon.sh
#
# Needs aarch64-linux-gnu-gcc and qemu-aarch64-static or qemu-aarch64 (Debian: gcc-aarch64-linux-gnu,
# qemu-user-static); what is missing is fetched by apt, if that may be and works.  Without them it
# prints "SKIP" and why, with exit code 0.  Under qemu nothing can be said of speed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cc=aarch64-linux-gnu-gcc
qemu=qemu-aarch64-static
command -v "$qemu" >/dev/null || ! command -v qemu-aarch64 >/dev/null || qemu=qemu-aarch64
work=$(mktemp -d "${TMPDIR:-/tmp}/check-neon.XXXXXX")
trap 'rm -rf "$work"' EXIT

skip() {
    echo "SKIP NEON: $*"
    exit 0
}

# need PACKAGE COMMAND: install the Debian package unless the command is there.
need() {
    local package=$1
    command -v "$2" >/dev/null && return
    command -v apt-get >/dev/null || skip "no $2, and no apt-get to install $package"
    [ "$(id -u)" = 0 ] || skip "no $2, and only root may install $package"
    echo "installing the Debian package $package"
    {
        [ -e "$work/updated" ] || apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y "$package"
    } >"$work/apt.log" 2>&1 ||
        skip "no $2, and apt-get cannot install $package: $(tail -n 1 "$work/apt.log")"
    touch "$work/updated"
}

need gcc-aarch64-linux-gnu "$cc"
need qemu-user-static "$qemu"

echo "$("$cc" --version | head -n 1); $("$qemu" --version | head -n 1)"
flags=(-std=c11 -Wall -Wextra -Werror -ffp-contract=off -Icsrc)
objects=()
for source in $(find csrc -name '*.c' | sort); do
    objects+=("$work/${#objects[@]}.o")
    "$cc" "${flags[@]}" -O3 -c "$source" -o "${objects[-1]}"
done
# The test itself with -O1: gcc 12 for aarch64 dies of an internal error at -O3.
"$cc" "${flags[@]}" -O1 -static tests/c/kernels/*.c "${objects[@]}" -lm -o "$work/check_kernels"

"$qemu" "$work/check_kernels" | tee "$work/log"
while read -r name; do
    grep -q "^$name: [1-9]" "$work/log" || { echo "$name was not checked" && exit 1; }
done < <(sed -nE 's/^BI_KERNEL\((\w+), (\w+), (neon)\)$/\1 \2 \3/p' csrc/kernels/kernels.inc)
