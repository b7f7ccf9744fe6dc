# shellcheck shell=bash
# Does the running kernel do WireGuard, and tests where one does. Sourced after common.sh; tests need
# services.sh too, and the daemons built.

# True when a WireGuard interface can be made here and now (the module is loaded if need be).
have_kernel_wireguard() {
    [ -d /sys/module/wireguard ] && return 0
    if ! is_root; then
        modinfo wireguard >/dev/null 2>&1
        return
    fi
    modprobe wireguard >/dev/null 2>&1 || true
    local namespace=prime-probe-$$ works=1
    ip netns add "$namespace" 2>/dev/null || return 1
    ip -n "$namespace" link add wgprobe type wireguard >/dev/null 2>&1 && works=0
    ip netns del "$namespace"
    return $works
}

kernel_wireguard_version() {
    cat /sys/module/wireguard/version 2>/dev/null || echo 'built in'
}

# kernel_tests DEADLINE [NAME=VALUE]... -- PROGRAM...: test programs where the kernel has WireGuard, here
# or in scripts/vm, with this in their environment.
kernel_tests() {
    local deadline=$1 template=$TARGET/kernel-services.tar variables=() copies=() file code=0
    shift
    while [ "$1" != -- ]; do
        variables+=("$1")
        shift
    done
    shift
    (
        services_in "$ROOT/target/kernel-services" fast
        save_services "$template"
        remove_services
    )
    if have_kernel_wireguard; then
        as_root env "${variables[@]}" "CONTROL_PLANE_BIN=$CONTROL_PLANE_BIN" \
            "NODE_AGENT_BIN=$NODE_AGENT_BIN" "$ROOT/scripts/lib/kernel-tests.sh" "$template" "$@" || code=$?
    else
        say 'this kernel has no WireGuard, so the tests run in scripts/vm'
        for file in "$template" "$CONTROL_PLANE_BIN" "$NODE_AGENT_BIN" "$@"; do copies+=(--copy "$file"); done
        "$ROOT/scripts/vm" --deadline "$deadline" "${copies[@]}" -- env "${variables[@]}" \
            "$ROOT/scripts/lib/kernel-tests.sh" "$(basename "$template")" "${@##*/}" || code=$?
    fi
    rm -f "$template"
    return "$code"
}

# The path of one test program.
test_program() {
    cargo test --quiet --locked --workspace --no-run --message-format=json 2>/dev/null | "$PYTHON" -c '
import json, sys
found = None
# To the end: cargo fails when nobody reads what it says.
for line in sys.stdin:
    artifact = json.loads(line)
    target = artifact.get("target", {})
    if target.get("name") == sys.argv[1] and target.get("kind") == ["test"]:
        found = artifact["executable"]
print(found or sys.exit(f"there is no test program {sys.argv[1]}"))' "$1"
}
