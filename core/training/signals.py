"""SIGINT and SIGTERM end a training between two steps, after its state was saved."""

import contextlib
import signal
import threading


class Stopped(Exception):
    """Raised in place of the next item after SIGINT or SIGTERM was received."""


@contextlib.contextmanager
def catch_signals():
    """Give a list that receives the first SIGINT or SIGTERM; a second one ends the process at once.

    Python delivers signals to the main thread only. In another thread, as in Streamlit or a
    notebook's executor, the list stays empty and the handlers stay as they are.
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
    """Yield the items; raise `Stopped` in place of the next one as soon as asked() is true."""
    for item in items:
        if asked():
            raise Stopped
        yield item
