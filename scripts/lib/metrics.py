"""Follows a user's live metrics over the WebSocket for some seconds, one printed line a message.

    metrics.py wss://HOST:PORT/ws/connection/USER CA_FILE SECONDS   (the token on standard input)

Exits 1 when fewer messages than seconds, less one, arrived. Standard library only.
"""

import base64
import json
import os
import socket
import ssl
import struct
import sys
import time
from urllib.parse import quote, urlsplit

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Closed(Exception):
    pass


def connect(url, ca_file, token):
    parts = urlsplit(url)
    raw = socket.create_connection((parts.hostname, parts.port), timeout=5)
    context = ssl.create_default_context(cafile=ca_file)
    stream = context.wrap_socket(raw, server_hostname=parts.hostname)
    key = base64.b64encode(os.urandom(16)).decode()
    stream.sendall(
        f"GET {parts.path}?token={quote(token)} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    reader = stream.makefile("rb")
    status = reader.readline().decode().strip()
    while reader.readline().strip():
        pass
    if " 101" not in status:
        raise Closed(f"no upgrade: {status}")
    return stream, reader


def exactly(reader, count):
    data = reader.read(count)
    if len(data) < count:
        raise Closed("the plane closed the connection")
    return data


def receive(reader):
    first, second = exactly(reader, 2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack(">H", exactly(reader, 2))
    elif length == 127:
        (length,) = struct.unpack(">Q", exactly(reader, 8))
    return first & 0x0F, exactly(reader, length)


def send(stream, opcode, payload):
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    stream.sendall(bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked)


def follow(stream, reader, seconds):
    seen = 0
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        stream.settimeout(left)
        try:
            opcode, payload = receive(reader)
        except TimeoutError:
            break
        if opcode == PING:
            send(stream, PONG, payload)
        elif opcode == CLOSE:
            code = struct.unpack(">H", payload[:2])[0] if len(payload) >= 2 else "no code"
            raise Closed(f"closed by the plane ({code})")
        elif opcode == TEXT:
            message = json.loads(payload)
            if message.get("type") == "metrics":
                seen += 1
                message["ping_ms"] = message["ping_ms"] or "-"
                print(
                    "        down {bytes_received:>10} B {download_speed_mbps:>8.2f} Mbit/s"
                    "   up {bytes_sent:>9} B {upload_speed_mbps:>8.2f} Mbit/s"
                    "   ping {ping_ms} ms".format(**message),
                    flush=True,
                )
    send(stream, CLOSE, struct.pack(">H", 1000))
    return seen


def main():
    url, ca_file, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    try:
        seen = follow(*connect(url, ca_file, sys.stdin.read().strip()), seconds)
    except (Closed, OSError, ValueError, KeyError) as problem:
        sys.exit(f"metrics: {problem!r}")
    if seen < seconds - 1:
        sys.exit(f"metrics: {seen} messages in {seconds} s")


if __name__ == "__main__":
    main()
