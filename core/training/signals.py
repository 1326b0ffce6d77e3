"""Handling of SIGINT and SIGTERM: a training ends between two steps and saves a checkpoint."""

import contextlib
import signal
import threading


class Stopped(Exception):
    """The exception that `stop_when` raises to end a training."""


@contextlib.contextmanager
def catch_signals():
    """Context manager that catches SIGINT and SIGTERM, and yields a list of the signal numbers received.

    The list is empty at first. The number of the first signal is added to the list. A second signal kills
    the process. Python can set signal handlers only in the main thread. In another thread, for example in
    Streamlit, the handlers are therefore not changed, and the list stays empty. A signal whose handler was
    not installed from Python is not caught, because Python could not restore this handler.
    """
    received = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def receive(number, frame):
        received.append(number)
        for each in before:
            signal.signal(each, signal.SIG_DFL)

    # getsignal returns None for a handler that was not installed from Python, which Python cannot restore
    caught = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not None]
    before = {number: signal.signal(number, receive) for number in caught}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_when(asked, items):
    """Yield the items. Before each item, call asked(), and raise `Stopped` if the result is true."""
    for item in items:
        if asked():
            raise Stopped
        yield item
