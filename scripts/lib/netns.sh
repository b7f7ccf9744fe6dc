# shellcheck shell=bash disable=SC2034 # its variables are read by the scripts that source it
# A small world of three network namespaces. Sourced after common.sh, wants root.
#
#     this machine ──192.0.2.x/30── node ──198.51.100.0/24── internet
#      (the plane)                   │
#                                    └────203.0.113.0/24─── client
#
# The client has no route but to the node's public address, and "the internet" none but to the
# node: what passes between the two went through the tunnel and the node's address translation.
# All addresses are from the ranges for documentation. Names carry the checkout's mark.

world_names() {
    local mark=$1 block
    NS_NODE=prime-$mark-$CHECKOUT-node
    NS_CLIENT=prime-$mark-$CHECKOUT-client
    NS_INTERNET=prime-$mark-$CHECKOUT-internet
    # At most 15 letters each, and unique in the machine: WireGuard's sockets are.
    WG_NODE=wg${mark}n$CHECKOUT WG_CLIENT=wg${mark}c$CHECKOUT
    VETH_PLANE=${mark}p$CHECKOUT
    block=$(( (16#$CHECKOUT % 63) * 4 ))
    PLANE_ADDRESS=192.0.2.$((block + 1)) NODE_INNER_ADDRESS=192.0.2.$((block + 2))
    NODE_ADDRESS=203.0.113.1 CLIENT_ADDRESS=203.0.113.2
    INTERNET_ADDRESS=198.51.100.2 INTERNET_RANGE=198.51.100.0/24
}

make_world() {
    remove_world
    local namespace
    for namespace in "$NS_NODE" "$NS_CLIENT" "$NS_INTERNET"; do
        # So that what sets name servers inside changes this file and not the machine's.
        mkdir -p "/etc/netns/$namespace"
        : >"/etc/netns/$namespace/resolv.conf"
        ip netns add "$namespace"
        ip -n "$namespace" link set lo up
    done
    ip link add "$VETH_PLANE" type veth peer name plane netns "$NS_NODE"
    ip address add "$PLANE_ADDRESS/30" dev "$VETH_PLANE"
    ip link set "$VETH_PLANE" up
    ip -n "$NS_NODE" address add "$NODE_INNER_ADDRESS/30" dev plane
    ip -n "$NS_NODE" link set plane up
    join "$NS_NODE" internet 198.51.100.1/24 "$NS_INTERNET" node "$INTERNET_ADDRESS/24"
    join "$NS_NODE" client "$NODE_ADDRESS/24" "$NS_CLIENT" node "$CLIENT_ADDRESS/24"
    # The node reaches "the internet" as a host does: by its default route.
    ip -n "$NS_NODE" route add default via "$INTERNET_ADDRESS"
    inside "$NS_NODE" sysctl -qw net.ipv4.ip_forward=1
    inside "$NS_NODE" sysctl -qw net.ipv6.conf.all.forwarding=1 2>/dev/null || true
    inside "$NS_NODE" sysctl -qw net.ipv4.ping_group_range="0 2147483647"
}

join() {
    ip -n "$1" link add "$2" type veth peer name "$5" netns "$4"
    ip -n "$1" address add "$3" dev "$2"
    ip -n "$4" address add "$6" dev "$5"
    ip -n "$1" link set "$2" up
    ip -n "$4" link set "$5" up
}

remove_world() {
    local namespace pids
    ip link del "$VETH_PLANE" 2>/dev/null || true
    for namespace in "$NS_NODE" "$NS_CLIENT" "$NS_INTERNET"; do
        [ -e "/run/netns/$namespace" ] || continue
        # Only this script starts anything in there.
        pids=$(ip netns pids "$namespace" 2>/dev/null || true)
        # shellcheck disable=SC2086 # a list of numbers
        [ -z "$pids" ] || kill -9 $pids 2>/dev/null || true
        ip netns del "$namespace"
        rm -f "/etc/netns/$namespace/resolv.conf"
        rmdir "/etc/netns/$namespace" 2>/dev/null || true
    done
    rmdir /etc/netns 2>/dev/null || true
    rm -f "/run/wireguard/$WG_NODE.sock" "/run/wireguard/$WG_CLIENT.sock"
}

# inside NAMESPACE COMMAND...
inside() {
    local namespace=$1
    shift
    ip netns exec "$namespace" "$@"
}

# wg_quick up|down CONFIG: the stock client in the client's namespace. Its name servers go to
# the namespace's own file, whatever resolvconf the machine has.
wg_quick() {
    local shim=$ROOT/scripts/lib/resolvconf
    # shellcheck disable=SC2016 # expanded by the inner shell
    inside "$NS_CLIENT" env NETNS_NAME="$NS_CLIENT" bash -c '
        shim=$1; shift
        for installed in /usr/bin/resolvconf /usr/sbin/resolvconf; do
            [ ! -e "$installed" ] || mount --bind "$shim" "$installed"
        done
        PATH=$(dirname "$shim"):$PATH exec wg-quick "$@"' bash "$shim" "$@"
}
