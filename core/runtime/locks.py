"""Exclusive file locks, which the system releases when their process ends, even by a kill.

The only module that depends on the operating system: `fcntl` on Linux and macOS, `msvcrt` on Windows.
"""

import errno
import time

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt


UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}  # as on some cluster disks


def acquire(file, *, wait):
    """Lock an open file until it is closed.

    If the file system does not support locks, prints a warning and continues without a lock. Raises
    BlockingIOError if another process holds the lock and wait is False.
    """
    if fcntl:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            print(
                f"warning: {file.name}: this file system has no locks ({error.strerror}); take care that no"
                " second process writes to this folder."
            )
        return
    while True:
        try:
            return msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            if not wait:
                raise BlockingIOError("another process holds the lock") from None
            time.sleep(0.1)
