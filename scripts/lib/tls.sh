# shellcheck shell=bash
# A small certificate authority for development. Sourced after common.sh.

# make_certificates DIR ADDRESS: DIR/ca.pem, server.pem, server.key, valid for ADDRESS and
# loopback. Kept until a month before they expire or until the address changes.
make_certificates() {
    local dir=$1 address=$2
    mkdir -p "$dir"
    if openssl verify -CAfile "$dir/ca.pem" -verify_ip "$address" "$dir/server.pem" \
        && openssl x509 -in "$dir/server.pem" -noout -checkend 2592000; then
        return
    fi >/dev/null 2>&1
    (
        umask 077
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
            -keyout "$dir/ca.key" -out "$dir/ca.pem" -subj '/CN=Prime VPN development CA' \
            -addext 'keyUsage=critical,keyCertSign,cRLSign'
        openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
            -keyout "$dir/server.key" -out "$dir/server.csr" -subj '/CN=control-plane'
        openssl x509 -req -in "$dir/server.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" \
            -CAcreateserial -days 365 -out "$dir/server.pem" -extfile <(
                printf 'subjectAltName=IP:%s,IP:127.0.0.1,DNS:localhost\n' "$address"
                printf 'basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n'
            )
    ) 2>"$dir/openssl.log" || { cat "$dir/openssl.log" >&2; return 1; }
    chmod 644 "$dir/ca.pem" "$dir/server.pem"
    rm -f "$dir/server.csr" "$dir/openssl.log"
}
