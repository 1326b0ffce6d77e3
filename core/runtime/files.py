"""Write a file completely or not at all, read a NumPy archive that may be damaged, and lock a file."""

import contextlib
import errno
import os
import re
import zipfile

import numpy as np

from core.runtime import locks
from core.runtime.errors import InputError

# errno values of a path that cannot be written even with free space and permissions, such as a file that is
# used as a folder.
UNFIT = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}

# errno values of temporary errors or missing permissions, which do not mean that a file is damaged.
PASSING = {errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}


def is_utf8(name):
    """True if a path or flag was valid UTF-8. Python decodes bytes that are not UTF-8 as lone surrogates."""
    return not re.search("[\ud800-\udfff]", str(name))


@contextlib.contextmanager
def writing(path):
    """Context manager that converts an OSError into an InputError that says that path cannot be written."""
    try:
        yield
    except OSError as error:
        cure = "free some space there or make it writable, then give the same command again"
        if error.errno in UNFIT:
            cure = "name another place"
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); {cure}.") from None


@contextlib.contextmanager
def atomic(path):
    """Context manager that yields a new binary file, which replaces the file at path when the block ends.

    If the block raises or the process is killed, the old file remains. Raises InputError if the disk is
    full or the folder cannot be written.
    """
    # The name does not change, so that a killed process leaves at most one file for each path.
    partial = path.with_name(f".{path.name}.partial")
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
    """Write a text file as UTF-8. If this fails, the old file remains."""
    with atomic(path) as file:
        file.write(text.encode())


def read_arrays(path, required):
    """Read an .npz file and return a dict: name -> array.

    Raises InputError if the file is damaged or lacks one of the required names, and OSError if the disk
    fails or the user may not read the file.
    """
    try:
        zipfile.ZipFile(path).close()  # np.load treats a file that is not a zip archive as a pickle
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        missing = set(required) - set(arrays)
        if missing:
            raise ValueError(f"without {', '.join(sorted(missing))}")
        return arrays
    except Exception as error:  # zipfile, zlib and NumPy raise different exceptions for damaged files
        if getattr(error, "errno", None) in PASSING:  # the disk or the permissions, not the file
            raise
        raise InputError(f"{path}: damaged ({error}); restore it from a copy or delete it.") from None


@contextlib.contextmanager
def lock(path, *, wait):
    """Context manager that holds an exclusive lock on a file, which it creates if it is missing.

    If another process holds the lock, waits for it; if wait is False, raises BlockingIOError instead. The
    operating system releases the lock when the process ends, even if it is killed.
    """
    with open(path, "wb") as file:
        locks.acquire(file, wait=wait)
        yield
