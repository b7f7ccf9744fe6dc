# shellcheck shell=bash disable=SC2034 # its variables are read by the scripts that source it
# What every script shares: where the checkout is, how a step is told, how a failure is told,
# and how to wait for a condition with a deadline. Sourced, never run.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$ROOT"
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
PATH=$PATH:/usr/local/bin:/usr/local/sbin:/usr/sbin:/sbin:$HOME/.cargo/bin

# A short name for this checkout, so that two of them on one machine do not meet in names that
# are global: namespaces, interfaces, WireGuard sockets.
CHECKOUT=$(printf %s "$ROOT" | sha256sum | cut -c1-4)

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
die() { warn "$(basename "$0"): $1"; [ $# -lt 2 ] || warn "  mend: $2"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" -eq 0 ]; }

# Prints the comment at the head of a script: its `--help`.
usage() { sed -n '2,${ /^$/q; s/^# \{0,1\}//p }' "$0"; }

# Runs a command as root: directly, or through sudo.
as_root() {
    if is_root; then "$@"
    elif have sudo; then sudo "$@"
    else die "'$1' needs root and there is no sudo" "run this script as root"; fi
}

# --- steps: each prints with its time; the trap in `on_failure` names the one that broke.

STEP='' STEP_LOG='' STEP_MEND='' STEP_BEGAN=0 WATCHED=''

milliseconds() { printf '%s\n' $(( ${EPOCHREALTIME/[.,]/} / 1000 )); }

# step NAME [LOG] [MEND]: ends the step before and begins this one.
step() {
    step_done
    STEP=$1 STEP_LOG=${2:-} STEP_MEND=${3:-} STEP_BEGAN=$(milliseconds) WATCHED=''
}

step_done() {
    [ -n "$STEP" ] || return 0
    local took=$(( $(milliseconds) - STEP_BEGAN ))
    printf '%4d.%d s  %s\n' $(( took / 1000 )) $(( took % 1000 / 100 )) "$STEP"
    STEP=''
}

# For an EXIT trap: tells which step failed, what its log says last and how to mend it.
report_failed_step() {
    [ -n "$STEP" ] || return 0
    warn "FAILED: $STEP"
    if [ -n "$STEP_LOG" ] && [ -s "$STEP_LOG" ]; then
        warn "--- the end of $STEP_LOG"
        tail -n 25 "$STEP_LOG" >&2
        warn "---"
    fi
    [ -z "$STEP_MEND" ] || warn "mend: $STEP_MEND"
}

# wait_for SECONDS WHAT COMMAND...: polls until the command succeeds. Gives up at once when the
# process in WATCHED, which it waits for, has ended.
wait_for() {
    local deadline=$(( $(milliseconds) + $1 * 1000 )) seconds=$1 what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$(milliseconds)" -lt "$deadline" ] || { warn "$what: not within $seconds s"; return 1; }
        [ -z "$WATCHED" ] || ! process_gone "$WATCHED" || { warn "$what: its process ended"; return 1; }
        sleep 0.1
    done
}

# Ends one process that we started and waits until it is gone.
stop_process() {
    local pid=$1 seconds=${2:-10}
    kill "$pid" 2>/dev/null || return 0
    wait_for "$seconds" "end of process $pid" process_gone "$pid" || kill -9 "$pid" 2>/dev/null || true
}

process_gone() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    [[ ${stat##*) } == Z* ]]
}

# The interpreter of the system is preferred: version managers' shims take a fifth of a second.
PYTHON=/usr/bin/python3
[ -x "$PYTHON" ] || PYTHON=python3

# "${WITH[@]}" FILE COMMAND...: becomes the command, with the variables that FILE sets. A command
# line is public, a file need not be.
# shellcheck disable=SC2016 # expanded by the inner shell
WITH=(bash -c 'set -a; source "$1"; shift; exec "$@"' bash)

# A TCP port on loopback that nothing listens on now.
free_port() {
    "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

random_hex() { openssl rand -hex "${1:-32}"; }

# json_get PATH: one value out of the JSON on standard input, by a dotted path.
json_get() {
    "$PYTHON" -c '
import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1].split("."):
    value = value[int(key)] if isinstance(value, list) else value[key]
print(value)' "$1"
}
