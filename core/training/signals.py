"""SIGINT and SIGTERM end a training between two steps, after its state was saved."""

import contextlib
import signal
import threading


class Stopped(Exception):
    """Raised instead of the next item after SIGINT or SIGTERM was received."""


@contextlib.contextmanager
def catch_signals():
    """Context manager that yields a list for the first SIGINT or SIGTERM; a second one kills the process.

    Python delivers signals to the main thread only. In another thread, as in Streamlit or a
    notebook's executor, the list stays empty and the signal handlers are not changed.
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
    """Yield the items; raise `Stopped` instead of yielding the next one as soon as asked() is true."""
    for item in items:
        if asked():
            raise Stopped
        yield item
