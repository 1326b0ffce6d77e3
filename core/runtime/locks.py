"""Exclusive locks on files. The operating system releases them when the process ends or is killed.

They are made by `fcntl` on Linux and macOS, and by `msvcrt` on Windows.
"""

import errno
import time

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt


# errno values of file systems without locks, such as some network disks
UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


def acquire(file, *, wait):
    """Lock an open file until it is closed.

    If another process holds the lock, waits for it; if wait is False, raises BlockingIOError instead. If the
    file system does not support locks, prints a warning and returns without a lock.
    """
    if fcntl:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            print(
                f"warning: {file.name}: this file system has no locks ({error.strerror}); make sure that no"
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
