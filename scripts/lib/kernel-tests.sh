#!/usr/bin/env bash
# Runs the kernel tests where the kernel has WireGuard: on this machine, or inside scripts/vm.
#
#     kernel-tests.sh SERVICES_TAR TEST_PROGRAM...
#
# The daemons' programs are found through CONTROL_PLANE_BIN and NODE_AGENT_BIN, or in the
# working directory. TEST_FILTER chooses tests by a part of their names.

# shellcheck source-path=SCRIPTDIR source=common.sh
here=$PWD
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source-path=SCRIPTDIR source=services.sh
source "$ROOT/scripts/lib/services.sh"
# shellcheck source-path=SCRIPTDIR source=kernel.sh
source "$ROOT/scripts/lib/kernel.sh"
cd "$here"

have_kernel_wireguard || die 'this kernel has no WireGuard' 'scripts/test kernel runs it in a VM'
say "wireguard.ko $(kernel_wireguard_version) on Linux $(uname -r)"

scratch=$(mktemp -d)
chmod 755 "$scratch"
trap 'stop_redis; stop_postgres; rm -rf "$scratch"' EXIT
services_in "$scratch" fast
load_services "$1"
start_postgres
start_redis

export TEST_DATABASE_URL=$PG_ADMIN_URL TEST_REDIS_URL=$REDIS_URL
export CONTROL_PLANE_BIN=${CONTROL_PLANE_BIN:-$here/control-plane}
export NODE_AGENT_BIN=${NODE_AGENT_BIN:-$here/node-agent}
# Deadlines stretch where the processor is emulated.
! grep -q 'model name.*QEMU' /proc/cpuinfo || export TEST_TIME_SCALE=${TEST_TIME_SCALE:-4}
shift
failed=0
for program in "$@"; do
    "$program" --test-threads=1 --nocapture "${TEST_FILTER:-}" || failed=1
done
exit "$failed"
