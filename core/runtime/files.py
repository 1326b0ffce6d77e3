"""Write files that are either complete or absent, and lock files."""

import contextlib
import errno
import os
import re

from core.runtime import locks
from core.runtime.errors import InputError

# Errors that neither free space nor permission cures, such as a file where a folder should be.
UNFIT = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}

# Errors that pass, or that concern this user: they say nothing about the content of a file.
PASSING = {errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}


def is_utf8(name):
    """Whether a path or flag can be printed. Python reads bytes that are not UTF-8 as lone surrogates."""
    return not re.search("[\ud800-\udfff]", str(name))


@contextlib.contextmanager
def writing(path):
    """A block that writes to a file or folder. Raises InputError, which names path, for an OSError."""
    try:
        yield
    except OSError as error:
        cure = "free some space there or make it writable, then give the same command again"
        if error.errno in UNFIT:
            cure = "name another place"
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); {cure}.") from None


@contextlib.contextmanager
def atomic(path):
    """Open a binary file to write. It replaces the file at path, on disk, when the block ends.

    If the block raises or the process dies, the old file remains. Raises InputError if the disk is
    full or the folder cannot be written.
    """
    partial = path.with_name(
        f".{path.name}.partial"
    )  # always the same name, so that leftovers do not pile up
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

    The lock ends with the process, however that ends. Raises BlockingIOError if another process holds
    it and wait is False.
    """
    with open(path, "wb") as file:
        locks.acquire(file, wait=wait)
        yield
