"""Exclusive locks on files, with `fcntl` on Linux and macOS and with `msvcrt` on Windows.

If a process ends or is killed, the operating system releases the locks of this process.
"""

import errno
import time

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt


# errno values with which file systems without locks, such as some network disks, refuse a lock
UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


def acquire(file, *, wait):
    """Lock an open file. The lock lasts until the file is closed.

    wait: what happens if another process holds the lock. True: the function waits until that process releases
    the lock. False: it raises BlockingIOError.
    If the file system does not support locks, prints a warning and returns without a lock. On Windows, such a
    file system is not recognised: every failure counts as a lock that another process holds.
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
