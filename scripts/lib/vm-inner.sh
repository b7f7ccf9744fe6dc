#!/bin/sh
# The first thing that runs inside the machine of scripts/vm: takes the exchange directory, which
# is the one place that both sides write, and leaves there the command's output and exit code.

exchange=$1
cut -d ' ' -f 1 /proc/uptime >"$exchange/up"

export PATH=/run/vm:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
ip link set lo up
for module in wireguard tun veth nf_tables; do modprobe "$module" 2>/dev/null; done

# Programs are read over and over, and the shared root is slow: they move into memory first.
mkdir -p /run/vm && mount -t tmpfs -o size=75% tmpfs /run/vm && cd /run/vm || exit 1
tar -xf "$exchange/files.tar"

bash "$exchange/command" >"$exchange/stdout" 2>"$exchange/stderr" </dev/null
echo $? >"$exchange/code"
sync
