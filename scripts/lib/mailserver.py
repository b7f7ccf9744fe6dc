"""mailserver.py PORT MAILDIR: a mail server on loopback that keeps what it is given.

A recipient such as refused-550@example.org is refused with that code, in words that repeat the
address, as mail servers do. Runs until it is killed.
"""

import re
import sys
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox


class Server(Mailbox):
    async def handle_RCPT(self, server, session, envelope, address, options):
        refused = re.match(r"refused-(\d{3})@", address)
        if refused:
            return f"{refused[1]} <{address}>: not taken"
        envelope.rcpt_tos.append(address)
        return "250 OK"


port, maildir = sys.argv[1:]
Controller(Server(maildir), hostname="127.0.0.1", port=int(port)).start()
threading.Event().wait()
