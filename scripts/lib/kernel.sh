# shellcheck shell=bash
# Does the running kernel do WireGuard? Sourced after common.sh.

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
