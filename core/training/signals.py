"""Handling of SIGINT and SIGTERM: a training ends between two steps and saves a checkpoint."""

import contextlib
import signal
import threading


class Stopped(Exception):
    """Raised by `stop_when` in place of the next item."""


@contextlib.contextmanager
def catch_signals():
    """Context manager that catches SIGINT and SIGTERM, and yields a list of the signal numbers received.

    The list is empty at first. The first signal is added to it, and a second signal kills the process.
    Python can handle signals only in the main thread. In another thread, as in Streamlit, the signal handlers
    are therefore not changed, and the list stays empty.
    """
    received = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def receive(number, frame):
        received.append(number)
        for each in before:
            signal.signal(each, signal.SIG_DFL)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_when(asked, items):
    """Yield the items; before each item, call asked() and raise `Stopped` if the result is true."""
    for item in items:
        if asked():
            raise Stopped
        yield item
