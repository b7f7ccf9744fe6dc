# shellcheck shell=bash disable=SC2034 # its variables are read by the scripts that source it
# The two daemons of a quickstart: their configuration, and calls to the plane. Sourced after
# common.sh, services.sh and netns.sh.

NODE_HOSTNAME=quickstart-node
ACCESS_TOKEN=''

# plane_environment DIR DATABASE_URL: writes DIR/plane.env, all that the plane reads. Its secrets
# are made once.
plane_environment() {
    local dir=$1 port metrics_port
    port=$(free_port) metrics_port=$(free_port)
    umask 077
    [ -s "$dir/secrets.env" ] \
        || printf 'SECRET_KEY=%s\nJWT_SECRET_KEY=%s\n' "$(random_hex)" "$(random_hex)" >"$dir/secrets.env"
    cat "$dir/secrets.env" - >"$dir/plane.env" <<-ENV
		DATABASE_URL=$2
		REDIS_URL=$REDIS_URL
		HOST=$PLANE_ADDRESS
		PORT=$port
		METRICS_PORT=$metrics_port
		ALLOWED_HOSTS=$PLANE_ADDRESS,localhost,127.0.0.1
		TLS_CERT_FILE=$(printf %q "$dir/tls/server.pem")
		TLS_KEY_FILE=$(printf %q "$dir/tls/server.key")
		PUBLIC_URL=https://$PLANE_ADDRESS:$port
		MAIL_DIR=$(printf %q "$dir/mail")
		LOG_FORMAT=text
		RUST_LOG=${RUST_LOG:-info}
	ENV
    umask 022
    PLANE_CA=$dir/tls/ca.pem
    PLANE_URL=https://$PLANE_ADDRESS:$port
    METRICS_URL=http://127.0.0.1:$metrics_port/metrics
    CONTROL_PLANE=("${WITH[@]}" "$dir/plane.env" "$TARGET/debug/control-plane")
}

# plane_payments DIR MONTHLY YEARLY: adds a started Stripe and its prices to it.
plane_payments() {
    (umask 077 && cat >>"$1/plane.env") <<-ENV
		STRIPE_API_BASE=$STRIPE_API_BASE
		STRIPE_SECRET_KEY=$STRIPE_SECRET_KEY
		STRIPE_WEBHOOK_SECRET=$STRIPE_WEBHOOK_SECRET
		STRIPE_MONTHLY_PRICE_ID=$2
		STRIPE_YEARLY_PRICE_ID=$3
	ENV
}

# agent_environment DIR: writes DIR/agent.env, all that the agent reads, for the namespaces of
# netns.sh.
agent_environment() {
    local dir=$1
    cat >"$dir/agent.env" <<-ENV
		PLANE_URL=$PLANE_URL
		PLANE_CA_FILE=$(printf %q "$dir/tls/ca.pem")
		HOSTNAME=$NODE_HOSTNAME
		WIREGUARD_INTERFACE=$WG_NODE
		WIREGUARD_PORT=51820
		PUBLIC_ENDPOINT=$NODE_ADDRESS:51820
		VPN_SUBNET=10.77.0.0/24
		VPN_SUBNET_V6=fd77::/112
		FORWARD_ALLOW=$INTERNET_RANGE
		STATE_DIR=$(printf %q "$dir/node/state")
		RUN_DIR=$(printf %q "$dir/node/run")
		BACKEND=auto
		RUST_LOG=${RUST_LOG:-info}
	ENV
    NODE_AGENT=(ip netns exec "$NS_NODE" "${WITH[@]}" "$dir/agent.env" "$TARGET/debug/node-agent")
}

# api METHOD PATH [JSON]: the answer's body; a refusal is printed with its body and fails.
api() {
    local method=$1 path=$2 answer status arguments=()
    [ $# -lt 3 ] || arguments+=(--header 'Content-Type: application/json' --data-binary @-)
    # The token goes by a file descriptor: a command line is public.
    answer=$(curl --silent --show-error --max-time 30 --cacert "$PLANE_CA" --request "$method" \
        --header @<([ -z "$ACCESS_TOKEN" ] || printf 'Authorization: Bearer %s\n' "$ACCESS_TOKEN") \
        --write-out '\n%{http_code}' "${arguments[@]}" "$PLANE_URL$path" <<<"${3:-}") || return 1
    status=${answer##*$'\n'}
    answer=${answer%$'\n'*}
    if [ "$status" -ge 300 ]; then
        warn "$method $path answered $status: $answer"
        return 1
    fi
    printf '%s\n' "$answer"
}
