"""Becomes a command under what a systemd unit allows, without systemd.

    confine.py UNIT --user UID:GID [--without CAPABILITY] [--bind FROM TO]... [--writable DIR]... -- COMMAND...

Read from the unit file, so that the two cannot drift apart: CapabilityBoundingSet, AmbientCapabilities,
NoNewPrivileges, UMask, SystemCallFilter, SystemCallArchitectures, MemoryDenyWriteExecute,
RestrictAddressFamilies, RestrictNamespaces, RestrictRealtime, DeviceAllow of /dev/net/tun, and
ProtectSystem=strict: all that is not --writable is read-only. Needs root. A setting that this program
does not know has no effect here.
"""

import argparse
import ctypes
import os
import platform
import re
import socket
import struct
import subprocess
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_ANY_NAMESPACE = 0x20000, 0x7E020000
AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY, SYS_MOUNT_SETATTR = -100, 0x8000, 1, 442
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
KILL, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97
PROT_WRITE, PROT_EXEC = 2, 4
ARCHITECTURES = {"x86_64": (0xC000003E, "x86_64-linux-gnu"), "aarch64": (0xC00000B7, "aarch64-linux-gnu")}


def read_unit(path):
    """The settings of [Service]: each a list of words over all its lines; an empty one clears it."""
    settings = {}
    for line in open(path, encoding="utf-8"):
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            words = value.split()
            settings[name] = settings.get(name, []) + words if words else []
    return settings


def is_on(unit, name):
    return unit.get(name) in (["yes"], ["true"])


def checked(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def set_read_only(path, on):
    attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY if on else 0, 0 if on else MOUNT_ATTR_RDONLY, 0, 0)
    checked(LIBC.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), AT_RECURSIVE, attributes, len(attributes)))


def mount_everything(unit, binds, writable):
    def mount(*arguments):
        subprocess.run(["mount", *arguments], check=True)

    checked(LIBC.unshare(CLONE_NEWNS))
    mount("--make-rprivate", "/")
    if "/dev/net/tun" in unit.get("DeviceAllow", []):
        # With the mode that udev gives it.
        mount("-t", "tmpfs", "tmpfs", "/dev/net")
        os.mknod("/dev/net/tun", 0o020666, os.makedev(10, 200))
        os.chmod("/dev/net/tun", 0o666)
    for source, target in binds:
        mount("--bind", source, target)
    for path in writable:
        mount("--bind", path, path)
    if unit.get("ProtectSystem") == ["strict"]:
        set_read_only("/", True)
        for path in [*writable, *(target for source, target in binds if os.path.isdir(target))]:
            set_read_only(path, False)


def system_calls(sets):
    """The names in groups such as @system-service, groups within groups included."""
    names = set()
    for name in sets:
        if not name.startswith("@"):
            names.add(name)
            continue
        listing = subprocess.run(
            ["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True
        ).stdout
        members = [line.strip() for line in listing.splitlines()[1:]]
        names |= system_calls(it for it in members if it and not it.startswith("#"))
    return names


def numbers(triple):
    text = ""
    for path in (f"/usr/include/{triple}/asm/unistd_64.h", "/usr/include/asm-generic/unistd.h"):
        if not text and os.path.exists(path):
            text = open(path, encoding="utf-8").read()
    return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)", text)}


class Filter:
    """A program of the kernel's packet filter, over a system call's number and arguments."""

    LOAD, AND, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
    NUMBER, ARCHITECTURE = 0, 4

    def __init__(self, architecture):
        self.program = []
        self.add(self.LOAD, self.ARCHITECTURE)
        self.add(self.EQUAL, architecture, 1, 0)
        self.add(self.RETURN, KILL)
        self.add(self.LOAD, self.NUMBER)
        # The x32 calls of x86-64.
        self.add(self.AT_LEAST, 0x40000000, 0, 1)
        self.add(self.RETURN, KILL)

    def add(self, code, value, then=0, otherwise=0):
        self.program.append(struct.pack("HBBI", code, then, otherwise, value))

    def verdict(self, number, verdict):
        self.add(self.EQUAL, number, 0, 1)
        self.add(self.RETURN, verdict)

    def deny_where(self, number, argument, mask, value, verdict):
        """Where the argument's low half, under the mask, has the value; None stands for any but zero."""
        self.add(self.EQUAL, number, 0, 5)
        self.add(self.LOAD, 16 + 8 * argument)
        self.add(self.AND, mask)
        self.add(self.EQUAL, value or 0, *((1, 0) if value is None else (0, 1)))
        self.add(self.RETURN, verdict)
        self.add(self.LOAD, self.NUMBER)

    def allow_only_values(self, number, argument, values, verdict):
        self.add(self.EQUAL, number, 0, 3 + len(values))
        self.add(self.LOAD, 16 + 8 * argument)
        for left, value in reversed(list(enumerate(sorted(values)))):
            self.add(self.EQUAL, value, left + 1, 0)
        self.add(self.RETURN, verdict)
        self.add(self.LOAD, self.NUMBER)

    def install(self):
        program = ctypes.create_string_buffer(b"".join(self.program))
        header = struct.pack("HxxxxxxQ", len(self.program), ctypes.addressof(program))
        checked(LIBC.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(header), 0, 0))


def build_filter(unit):
    architecture, triple = ARCHITECTURES[platform.machine()]
    number, refuse = numbers(triple), ERRNO | EPERM
    program = Filter(architecture)
    if is_on(unit, "MemoryDenyWriteExecute"):
        both = PROT_WRITE | PROT_EXEC
        program.deny_where(number["mmap"], 2, both, both, refuse)
        for name in ("mprotect", "pkey_mprotect"):
            program.deny_where(number[name], 2, PROT_EXEC, PROT_EXEC, refuse)
    if families := unit.get("RestrictAddressFamilies"):
        values = [int(getattr(socket, name)) for name in families]
        program.allow_only_values(number["socket"], 0, values, ERRNO | EAFNOSUPPORT)
    if is_on(unit, "RestrictNamespaces"):
        program.verdict(number["clone3"], ERRNO | ENOSYS)
        program.verdict(number["setns"], refuse)
        for name in ("clone", "unshare"):
            program.deny_where(number[name], 0, CLONE_ANY_NAMESPACE, None, refuse)
    if is_on(unit, "RestrictRealtime"):
        for policy in (os.SCHED_FIFO, os.SCHED_RR):
            program.deny_where(number["sched_setscheduler"], 1, 0xFF, policy, refuse)
    words = unit["SystemCallFilter"]
    # What systemd itself needs to start a service is always let through.
    allowed = system_calls([it for it in words if not it.startswith("~")] + ["@default"])
    for word in words:
        if word.startswith("~"):
            allowed -= system_calls([word[1:]])
    for name in sorted(allowed & number.keys()):
        program.verdict(number[name], ALLOW)
    program.add(Filter.RETURN, refuse)
    return program


def capability_list(names):
    names = [name.removeprefix("CAP_").lower() for name in names]
    return ",".join(["-all", *(f"+{name}" for name in names)])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("unit")
    parser.add_argument("--user", required=True)
    parser.add_argument("--without")
    parser.add_argument("--bind", nargs=2, action="append", default=[])
    parser.add_argument("--writable", action="append", default=[])
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    unit = read_unit(options.unit)
    uid, _, gid = options.user.partition(":")
    ambient, bounding = (
        capability_list(it for it in unit.get(name, []) if it != options.without)
        for name in ("AmbientCapabilities", "CapabilityBoundingSet")
    )
    program = build_filter(unit)
    mount_everything(unit, options.bind, options.writable)
    os.umask(int(unit.get("UMask", ["0022"])[0], 8))
    program.install()
    setpriv = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    setpriv += [f"--bounding-set={bounding}", f"--inh-caps={ambient}", f"--ambient-caps={ambient}"]
    setpriv += ["--no-new-privs"] if is_on(unit, "NoNewPrivileges") else []
    os.execvp("setpriv", [*setpriv, "--", *options.command])


if __name__ == "__main__":
    sys.exit(main())
