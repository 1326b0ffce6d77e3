"""A clean end on SIGINT and SIGTERM: between two steps of a loop, never within one."""

import contextlib
import signal


class Stopped(Exception):
    """SIGINT or SIGTERM asked for an end."""


@contextlib.contextmanager
def catch_signals():
    """A list that gets the first SIGINT or SIGTERM; a second one ends the process at once."""
    received = []

    def note(number, frame):
        received.append(number)
        for either in before:
            signal.signal(either, signal.SIG_DFL)

    before = {either: signal.signal(either, note) for either in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for either, handler in before.items():
            signal.signal(either, handler)


def stop_when(asked, items):
    """The items one by one; raises Stopped in the place of the next as soon as asked() is true."""
    for item in items:
        if asked():
            raise Stopped
        yield item
