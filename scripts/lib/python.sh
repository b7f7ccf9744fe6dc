# shellcheck shell=bash
# Python programs that only tests run, in an environment of their own. Sourced after common.sh.

PY=$TARGET/py

# Makes target/py hold exactly what requirements.txt names. Does nothing when it does already.
python_tools() {
    local wanted=$ROOT/scripts/lib/requirements.txt
    ! cmp -s "$wanted" "$PY/requirements.txt" || return 0
    "$PYTHON" -c 'import ensurepip' 2>/dev/null || die "$PYTHON has no venv" 'scripts/setup test'
    say 'setup: installing Python tools into target/py'
    rm -rf "$PY"
    "$PYTHON" -m venv "$PY"
    "$PY/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$wanted" \
        || die 'pip could not install scripts/lib/requirements.txt' 'check the network'
    cp "$wanted" "$PY/requirements.txt"
}
