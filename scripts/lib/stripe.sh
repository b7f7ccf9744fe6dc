# shellcheck shell=bash disable=SC2034 # its variables are read by the scripts that source it
# Stripe for one directory: localstripe and, before it, the Stripe server of the test package.
# Sourced after common.sh and python.sh. Cargo must have built `stripe-server`.
#
#     start_stripe DIR WEBHOOK_URL [PORT]   idempotent: adopts what already runs from that
#                                           directory; returns when it answers
#     stop_stripe DIR                       idempotent
#     stripe_price NAME MINOR CURRENCY month|year   prints the id of a price, made once
#
# After a start STRIPE_API_BASE, STRIPE_SECRET_KEY and STRIPE_WEBHOOK_SECRET are set, as the control
# plane reads them. Both programs listen on loopback only; what they know is kept in DIR, and so
# are the secret of the webhooks and the port.

start_stripe() {
    local dir=$1 url=$2 port=${3:-} behind
    mkdir -p "$dir"
    [ -s "$dir/webhook.secret" ] || (umask 077 && printf 'whsec_%s\n' "$(random_hex)" >"$dir/webhook.secret")
    STRIPE_WEBHOOK_SECRET=$(cat "$dir/webhook.secret")
    STRIPE_SECRET_KEY=sk_test_local
    STRIPE_LOG=$dir/stripe.log
    if ! stripe_answers "$dir"; then
        stop_stripe "$dir"
        python_tools
        # The addresses of its pages stand in what it keeps: the port stays, when it can.
        [ -n "$port" ] || port=$(cat "$dir/port" 2>/dev/null) || port=$(free_port)
        behind=$(free_port)
        printf '%s\n' "$port" >"$dir/port"
        "$PY/bin/python" "$ROOT/scripts/lib/stripe_books.py" "$behind" "$dir" \
            >>"$STRIPE_LOG" 2>&1 </dev/null &
        printf '%s\n' $! >"$dir/pids"
        STRIPE_WEBHOOK_SECRET=$STRIPE_WEBHOOK_SECRET "$TARGET/debug/stripe-server" --port "$port" \
            --localstripe "http://127.0.0.1:$behind" --folder "$dir" --webhook-url "$url" \
            >>"$STRIPE_LOG" 2>&1 </dev/null &
        printf '%s\n' $! >>"$dir/pids"
        wait_for 30 'the Stripe server' stripe_answers "$dir" \
            || { tail -n 20 "$STRIPE_LOG" >&2; die 'the Stripe server does not answer' "read $STRIPE_LOG"; }
    fi
    STRIPE_API_BASE=http://127.0.0.1:$(cat "$dir/port")
    curl -sf -X PUT "$STRIPE_API_BASE/_control/webhooks" -H 'content-type: application/json' \
        -d "{\"target\":[\"$url\",\"$STRIPE_WEBHOOK_SECRET\"],\"is_delivering\":true}"
}

# The process is ours when it was started with our directory: another may have taken the port.
stripe_answers() {
    local pid port
    port=$(cat "$1/port" 2>/dev/null) || return 1
    pid=$(tail -n 1 "$1/pids" 2>/dev/null) || return 1
    stripe_owns "$pid" "$1" && curl -sf -o /dev/null "http://127.0.0.1:$port/_control/ready"
}

stripe_owns() { tr '\0' '\n' <"/proc/$1/cmdline" 2>/dev/null | grep -qxF -- "$2"; }

stop_stripe() {
    local pid
    while read -r pid; do
        ! stripe_owns "$pid" "$1" || stop_process "$pid"
    done < <(tac "$1/pids" 2>/dev/null)
    rm -f "$1/pids"
}

# The idempotency key makes it one price however often it is asked for.
stripe_price() {
    curl -sf "$STRIPE_API_BASE/v1/prices" -u "$STRIPE_SECRET_KEY:" \
        -H "Idempotency-Key: price-$1-$2-$3-$4" -d "unit_amount=$2" -d "currency=$3" \
        -d "recurring[interval]=$4" -d "nickname=$1" --data-urlencode "product_data[name]=$1" \
        | json_get id
}
