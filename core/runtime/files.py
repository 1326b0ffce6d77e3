"""Write files that are either complete or absent, and lock files."""

import contextlib
import errno
import os
import re

from core.runtime import locks
from core.runtime.errors import InputError

# Errors that neither free space nor permissions can cure, such as a file in place of a folder.
UNFIT = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}

# Errors that are temporary or concern this user: they do not mean that a file is damaged.
PASSING = {errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}


def is_utf8(name):
    """True if a path or flag can be printed. Python decodes bytes that are not UTF-8 as lone surrogates."""
    return not re.search("[\ud800-\udfff]", str(name))


@contextlib.contextmanager
def writing(path):
    """Context manager for writing a file or folder: turns an OSError into an InputError that names path."""
    try:
        yield
    except OSError as error:
        cure = "free some space there or make it writable, then give the same command again"
        if error.errno in UNFIT:
            cure = "name another place"
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); {cure}.") from None


@contextlib.contextmanager
def atomic(path):
    """Context manager that opens a binary file; at its end the file replaces the one at path.

    If the block raises or the process is killed, the old file remains. Raises InputError if the disk is
    full or the folder cannot be written.
    """
    partial = path.with_name(
        f".{path.name}.partial"
    )  # a fixed name, so that leftover files do not accumulate
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
    """Write text as UTF-8, completely or not at all."""
    with atomic(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def lock(path, *, wait):
    """Hold an exclusive lock on a file while the block runs; create the file if it is missing.

    The system releases the lock when the process ends, even by a kill. Raises BlockingIOError if
    another process holds the lock and wait is False.
    """
    with open(path, "wb") as file:
        locks.acquire(file, wait=wait)
        yield
