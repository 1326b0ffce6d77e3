"""Exclusive file locks, which the system releases when their process ends, however it ends.

The only module that depends on the operating system's own locks: `fcntl` on Linux and macOS, `msvcrt`
on Windows.
"""

import time

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt


def acquire(file, *, wait):
    """Lock an open file until it is closed.

    Raises BlockingIOError if another process holds the lock and wait is False.
    """
    if fcntl:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return
    while True:
        try:
            return msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            if not wait:
                raise BlockingIOError("another process holds the lock") from None
            time.sleep(0.1)
