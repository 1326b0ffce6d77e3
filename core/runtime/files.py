"""Files that are whole or absent, and locks that die with their process."""

import contextlib
import errno
import fcntl
import os
import re

from core.runtime.errors import InputError

# What neither space nor permission cures: a file where a folder should be, and the reverse.
UNFIT = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}

# What fails for now, or for this user: it says nothing about the content of a file.
PASSING = {errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}


def is_utf8(name):
    """Whether a path or flag can be printed: what is no UTF-8, Python reads as lone surrogates."""
    return not re.search("[\ud800-\udfff]", str(name))


@contextlib.contextmanager
def writing(path):
    """A block that writes to a file or folder; a full disk and the like name it.

    Raises InputError in the place of an OSError.
    """
    try:
        yield
    except OSError as error:
        cure = "free some space there or make it writable, then give the same command again"
        if error.errno in UNFIT:
            cure = "name another place"
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); {cure}.") from None


@contextlib.contextmanager
def atomic(path):
    """A binary file to write; it takes path's place, on disk, when the block ends.

    If the block raises, or the process dies, what stood at path still stands.
    Raises InputError where the disk is full or the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")  # one name: leftovers do not pile up
    try:
        with writing(path):
            with open(partial, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_text(path, text):
    """Write text as UTF-8, whole or not at all."""
    with atomic(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def lock(path, *, wait):
    """Hold an exclusive lock on a file for the length of the block.

    The kernel drops it when the process ends, however it ends. Raises
    BlockingIOError if another process holds it and wait is False.
    """
    with open(path, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
