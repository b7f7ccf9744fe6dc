"""Who calls when schemathesis calls: an account for the person's routes, another for the administrators'.

The fuzzer logs its account out, changes its password and deletes it; each time a token is refused, the
next call comes from a fresh account. Accounts are made by the plane's own command line.

An address registers once (400 EMAIL_TAKEN is the contract's answer after that), and the fuzzer likes
some addresses: what it sends a second time gets a number.

The fuzzer follows the ids of one answer into the path of the next call, also where a list has null in
one of its rows, which it would write as "None": an id that nothing has stands there instead.
"""

import itertools
import json
import os
import secrets
import subprocess
import urllib.request
import uuid

import schemathesis

PASSWORD = secrets.token_hex(16)
NUMBERS = itertools.count(1)
REGISTERED = set()

# Below them a caller acts on other people, and needs the highest role to get past the door.
ADMINISTRATION = ("/api/v1/admin", "/api/v1/users", "/api/v1/analytics")
OWN = "/api/v1/users/me"


def caller(case, _context) -> str:
    """Which account the operation is called with."""
    security = json.dumps(case.operation.definition.raw.get("security", []))
    if "bearer" not in security:
        return "nobody"
    path = case.operation.path
    return "superuser" if path.startswith(ADMINISTRATION) and not path.startswith(OWN) else "user"


def account(role: str) -> str:
    """Makes an account and returns its address."""
    email = f"{role}-{os.getpid()}-{next(NUMBERS)}@example.org"
    # The fuzzer reads it in answers and sends it back.
    REGISTERED.add(email)
    command = [os.environ["CONTROL_PLANE_BIN"], "admin", "create-user", "--email", email]
    command += ["--role", role, "--plan", "premium_yearly"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PASSWORD": PASSWORD})
    return email


def log_in(email: str) -> str:
    """The access token of a new session."""
    request = urllib.request.Request(
        os.environ["PLANE_URL"] + "/api/v1/auth/login",
        data=json.dumps({"email": email, "password": PASSWORD}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)["access_token"]


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """Puts right what the fuzzer cannot know of."""
    for name, value in (case.path_parameters or {}).items():
        if value is None:
            case.path_parameters = {**case.path_parameters, name: str(uuid.uuid4())}
    register_once(case)


def register_once(case):
    """Gives an address that was sent before a number."""
    if not case.operation.path.endswith("/auth/register") or not isinstance(case.body, dict):
        return
    email = case.body.get("email")
    if not isinstance(email, str):
        return
    if email.strip().lower() in REGISTERED:
        email = f"again{next(NUMBERS)}@{email.rpartition('@')[2]}"
        case.body = {**case.body, "email": email}
    REGISTERED.add(email.strip().lower())


@schemathesis.auth(cache_by_key=caller, refresh_interval=900)
class Caller:
    """Sends the caller's access token."""

    def get(self, case, context):
        role = caller(case, context)
        return None if role == "nobody" else log_in(account(role))

    def set(self, case, data, context):
        if data is not None:
            case.headers = case.headers or {}
            case.headers["Authorization"] = f"Bearer {data}"
