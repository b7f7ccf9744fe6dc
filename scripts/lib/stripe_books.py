"""stripe_books.py PORT [FOLDER]: localstripe on loopback, with its books in FOLDER or in memory only.

By itself it listens on every address and keeps its books in one file that all its processes on a
machine overwrite. It also charges a card that it would not attach. Runs until it is killed.
"""

import os
import pickle
import sys

from aiohttp import web
from localstripe import resources, server

port, *folder = sys.argv[1:]
books = os.path.join(folder[0], "localstripe.pickle") if folder else None


def keep(store):
    if books is None:
        return
    with open(books + ".new", "wb") as file:
        pickle.dump(dict(store), file, protocol=pickle.HIGHEST_PROTOCOL)
    os.replace(books + ".new", books)


# Once a request that writes, not once an object: the server calls `dump_to_disk` after each.
resources.Store.dump_to_disk = keep
resources.Store.__setitem__ = dict.__setitem__
resources.Store.__delitem__ = dict.__delitem__

declined = resources.PaymentMethod._charging_is_declined
resources.PaymentMethod._charging_is_declined = (
    lambda self: declined(self) or self._attaching_is_declined()
)

if books and os.path.exists(books):
    with open(books, "rb") as file:
        resources.store.update(pickle.load(file))

web.run_app(server.app, host="127.0.0.1", port=int(port), print=None, access_log=None)
