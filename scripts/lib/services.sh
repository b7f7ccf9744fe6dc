# shellcheck shell=bash disable=SC2034 # its variables are read by the scripts that source it
# Private Postgres and Redis for one directory. Sourced after common.sh.
#
#     services_in DIR durable|fast    choose the directory and how much a crash may lose
#     start_postgres, start_redis     idempotent: adopt what already runs from that directory
#     stop_postgres, stop_redis       idempotent
#     create_database NAME
#
# PG_SETTINGS may hold further settings for Postgres (-c NAME=VALUE …). After a start PG_ADMIN_URL,
# REDIS_URL are set (database_url NAME gives the URL of one database).
# Both listen on a free port of loopback only and want a random password that is kept beside the
# data. `fast` turns durability off and is for tests.

services_in() {
    SERVICES_DIR=$1 SERVICES_MODE=${2:-durable}
    mkdir -p "$SERVICES_DIR"
    SERVICES_DIR=$(cd "$SERVICES_DIR" && pwd -P)
    PG_LINK=$SERVICES_DIR/postgres REDIS_LINK=$SERVICES_DIR/redis
    PG_LOG=$SERVICES_DIR/log/postgres.log REDIS_LOG=$SERVICES_DIR/log/redis.log
    mkdir -p "$SERVICES_DIR/log"
    # Postgres refuses to run as root.
    if is_root; then PG_USER=postgres; else PG_USER=$(id -un); fi
    PG_BIN=$(postgres_bin) || die 'no Postgres server binaries' 'scripts/setup'
    local secret=$SERVICES_DIR/services.password
    [ -s "$secret" ] || (umask 077 && random_hex 24 >"$secret")
    SERVICES_PASSWORD=$(cat "$secret")
}

# The newest server's programs; Debian keeps them off the PATH.
postgres_bin() {
    local found
    found=$(find /usr/lib/postgresql/*/bin -name initdb 2>/dev/null | sort -V | tail -n 1)
    [ -n "$found" ] || found=$(command -v initdb) || return 1
    dirname "$found"
}

as_postgres() {
    if is_root; then (cd / && runuser -u "$PG_USER" -- "$@"); else "$@"; fi
}

# --- where the data lives

# The account must be able to walk to its data; a checkout under /root is closed to it. Then the
# data goes to /var/lib, and a link stands here.
settle_postgres_dir() {
    [ ! -e "$PG_LINK" ] || return 0
    rm -f "$PG_LINK"
    if as_postgres test -x "$SERVICES_DIR"; then
        mkdir -m 700 "$PG_LINK"
    else
        local elsewhere
        elsewhere=/var/lib/prime-vpn-dev/$(printf %s "$SERVICES_DIR" | sha256sum | cut -c1-8)
        mkdir -p "$elsewhere"
        [ -d "$elsewhere/postgres" ] || mkdir -m 700 "$elsewhere/postgres"
        ln -s "$elsewhere/postgres" "$PG_LINK"
        warn "the account $PG_USER cannot enter $SERVICES_DIR: its data is in $elsewhere"
    fi
    ! is_root || chown "$PG_USER": "$(readlink -f "$PG_LINK")"
}

pg_dir() { readlink -f "$PG_LINK"; }

# Only the directories that this file made are ever removed.
remove_services() {
    stop_postgres
    stop_redis
    [ ! -e "$PG_LINK" ] || rm -rf "$(pg_dir)"
    rm -rf "$PG_LINK" "$REDIS_LINK"
}

# --- Postgres

make_cluster() {
    settle_postgres_dir
    [ ! -s "$PG_LINK/PG_VERSION" ] || return 0
    local durability=()
    [ "$SERVICES_MODE" = durable ] || durability=(--no-sync)
    # The password goes through a pipe (of the account's own, by the `cat`): the account cannot
    # read our directory, and a command line is public.
    # shellcheck disable=SC2016 # expanded by the inner shell
    printf '%s\n' "$SERVICES_PASSWORD" \
        | as_postgres sh -c 'cat | "$@"' sh "$PG_BIN/initdb" --pgdata "$(pg_dir)" \
            --username prime --encoding UTF8 --locale C --auth scram-sha-256 \
            --pwfile /dev/stdin "${durability[@]}" >"$PG_LOG" 2>&1 \
        || { tail -n 20 "$PG_LOG" >&2; rm -rf "$(pg_dir)" "$PG_LINK"; die 'initdb failed' "read $PG_LOG"; }
}

postgres_runs() { as_postgres "$PG_BIN/pg_ctl" status --pgdata "$(pg_dir)" >/dev/null 2>&1; }

postgres_ready() {
    postgres_runs || return 1
    PG_PORT=$(sed -n 4p "$PG_LINK/postmaster.pid" 2>/dev/null)
    [ -n "$PG_PORT" ] && "$PG_BIN/pg_isready" --quiet --host 127.0.0.1 --port "$PG_PORT"
}

start_postgres() {
    make_cluster
    if ! postgres_runs; then
        local settings="${PG_SETTINGS:-} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        settings+=" -c max_connections=300 -c shared_buffers=128MB -c port=$(free_port)"
        [ "$SERVICES_MODE" = durable ] \
            || settings+=' -c fsync=off -c synchronous_commit=off -c full_page_writes=off'
        as_postgres "$PG_BIN/pg_ctl" start --no-wait --silent --pgdata "$(pg_dir)" \
            --options "$settings" >>"$PG_LOG" 2>&1 </dev/null \
            || die 'Postgres did not start' "read $PG_LOG"
    fi
    wait_for 60 'Postgres' postgres_ready \
        || { tail -n 20 "$PG_LOG" >&2; die 'Postgres does not answer' "read $PG_LOG"; }
    PG_PORT=$(sed -n 4p "$PG_LINK/postmaster.pid")
    PG_ADMIN_URL=$(database_url postgres)
}

stop_postgres() {
    [ -e "$PG_LINK/postmaster.pid" ] || return 0
    as_postgres "$PG_BIN/pg_ctl" stop --silent --mode fast --timeout 30 --pgdata "$(pg_dir)" \
        >>"$PG_LOG" 2>&1 || true
}

database_url() { printf 'postgres://prime:%s@127.0.0.1:%s/%s\n' "$SERVICES_PASSWORD" "$PG_PORT" "$1"; }

psql_admin() { PGPASSWORD=$SERVICES_PASSWORD "$PG_BIN/psql" -XqAt -h 127.0.0.1 -p "$PG_PORT" -U prime -d postgres "$@"; }

create_database() {
    [ -n "$(psql_admin -c "SELECT 1 FROM pg_database WHERE datname = '$1'")" ] \
        || psql_admin -c "CREATE DATABASE \"$1\""
}

# save_services TAR, load_services TAR: a fresh cluster with its password, to be used in another
# place: making one under emulation takes a minute.
save_services() {
    make_cluster
    tar -chf "$1" -C "$SERVICES_DIR" services.password postgres
}

load_services() {
    tar -xf "$1" -C "$SERVICES_DIR"
    ! is_root || chown -R "$PG_USER": "$PG_LINK"
    SERVICES_PASSWORD=$(cat "$SERVICES_DIR/services.password")
}

# --- Redis: a wire and a cache, so it keeps nothing on disk in either mode.

redis_ping() {
    REDIS_PORT=$(cat "$REDIS_LINK/port" 2>/dev/null) || return 1
    [ "$(REDISCLI_AUTH=$SERVICES_PASSWORD redis-cli -h 127.0.0.1 -p "$REDIS_PORT" ping 2>/dev/null)" = PONG ]
}

start_redis() {
    mkdir -p "$REDIS_LINK"
    if ! redis_ping; then
        REDIS_PORT=$(free_port)
        (umask 077 && cat >"$REDIS_LINK/redis.conf") <<-CONF
			bind 127.0.0.1
			port $REDIS_PORT
			requirepass $SERVICES_PASSWORD
			dir "$REDIS_LINK"
			pidfile "$REDIS_LINK/pid"
			logfile "$REDIS_LOG"
			daemonize yes
			save ""
			appendonly no
		CONF
        redis-server "$REDIS_LINK/redis.conf" >>"$REDIS_LOG" 2>&1 \
            || die 'Redis did not start' "read $REDIS_LOG"
        printf '%s\n' "$REDIS_PORT" >"$REDIS_LINK/port"
    fi
    wait_for 20 'Redis' redis_ping \
        || { tail -n 20 "$REDIS_LOG" >&2; die 'Redis does not answer' "read $REDIS_LOG"; }
    REDIS_PORT=$(cat "$REDIS_LINK/port")
    REDIS_URL="redis://default:$SERVICES_PASSWORD@127.0.0.1:$REDIS_PORT/0"
}

stop_redis() {
    local pid
    # The answer to our password proves that the process is ours: a pid file may be stale.
    redis_ping || return 0
    pid=$(cat "$REDIS_LINK/pid")
    stop_process "$pid"
    rm -f "$REDIS_LINK/port"
}
