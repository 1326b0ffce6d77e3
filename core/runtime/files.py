"""Write a file completely or not at all, read a NumPy archive (.npz) safely, and lock a file."""

import contextlib
import errno
import fcntl
import math
import os
import re
import resource
import time
import zipfile

import numpy as np
from numpy.lib import format as npy

from core.runtime.errors import InputError

# errno values for a path that is itself unusable, for example because a parent is a file and not a folder.
# More disk space or other permissions would not help.
UNFIT = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENAMETOOLONG}

# errno values for failures of the machine or of a network disk, and for missing permissions. They do not mean
# that the file is damaged.
PASSING = {errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}
PASSING |= {errno.ENOTCONN, errno.ETIMEDOUT, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH}
PASSING |= {errno.ENETDOWN, errno.ENETUNREACH}

# errno values with which file systems without locks, such as some network disks, refuse a lock
WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


STARTED = time.time()  # when this process imported this module


def edited_since_start(path):
    """True if a file was changed after this process began, so that this process may run its old code.

    A modification time in the future is ignored, because a wrong clock has set it.
    """
    return STARTED < os.path.getmtime(path) <= time.time()


def is_utf8(name):
    """True if a path or command-line argument is valid UTF-8.

    name: a str or `Path` from the operating system. Python represents bytes that are not UTF-8 as lone
    surrogates, the characters U+D800 to U+DFFF.
    """
    return not re.search("[\ud800-\udfff]", str(name))


def allow_open_files(count):
    """Raise the limit of open files of this process to `count`, or as far as the system allows.

    Larger limits are kept. The usual limit is 1024 on Linux and 256 on macOS.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@contextlib.contextmanager
def writing(path):
    """Context manager that converts an OSError in its `with` block into an InputError.

    The message of the InputError says that `path` cannot be written.
    """
    try:
        yield
    except BrokenPipeError:  # stdout was closed; `core.runtime.cli.main` handles this error
        raise
    except OSError as error:
        cure = "free some space there or make it writable, then give the same command again"
        if error.errno == errno.ENOENT:
            cure = "create its folder or name another place"
        elif error.errno in UNFIT:
            cure = "name another place"
        elif error.errno in (errno.EMFILE, errno.ENFILE):
            cure = "raise the limit of open files (ulimit -n), then give the same command again"
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); {cure}.") from None


@contextlib.contextmanager
def atomic(path):
    """Context manager that yields a new binary file, which replaces the file at path after the `with` block.

    If the `with` block raises or the process is killed, the file at path stays as it was. Raises InputError
    if the file cannot be written, for example because the disk is full or the folder is read-only.
    """
    if not path.name:  # "." or "/"
        raise InputError(f"{path}: cannot be written, because it is a folder; name a file.")
    # The name of the new file depends only on path, so killed processes leave at most one such file per path.
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
    """Write a text file as UTF-8. If this fails, an existing file at path stays as it was."""
    with atomic(path) as file:
        file.write(text.encode())


def read_arrays(path, required):
    """Read an .npz file and return a dict: name -> array.

    required: the names of arrays that the file must contain. Raises InputError if one of these arrays is
    missing, or if the file is damaged or does not exist. Raises OSError for the failures in PASSING, for
    example if the disk fails or the user may not read the file. Raises MemoryError if the memory is full.
    """
    try:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        missing = set(required) - set(arrays)
        if missing:
            raise ValueError(f"without {', '.join(sorted(missing))}")
        return arrays
    except Exception as error:  # zipfile, zlib and NumPy raise different exceptions for damaged files
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in PASSING:
            raise  # the file itself may be undamaged
        raise InputError(f"{path}: damaged ({error}); restore it from a copy or delete it.") from None


def _check_sizes(path):
    """Raise an exception if a file is not a zip archive, or if an array's size contradicts its header.

    np.load treats a file that is not a zip archive as a pickle. If a damaged header gave a huge shape,
    np.load would raise MemoryError, which `read_arrays` does not treat as damage.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                first = npy.read_magic(file) == (1, 0)
                read_header = npy.read_array_header_1_0 if first else npy.read_array_header_2_0
                shape, _, dtype = read_header(file)
                if file.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
                    raise ValueError(f"the size of {member.filename} contradicts its header")


@contextlib.contextmanager
def lock(path, *, busy=None):
    """Context manager that holds an exclusive lock on the file at path while its `with` block runs.

    The file is created if it is missing. It may belong to another user, except on NFS.
    busy: what happens if another process holds the lock. None: the function prints a line and waits until
    that process releases the lock. A text: it raises InputError with this text.
    The operating system releases the lock if this process ends or is killed. On a network disk, the lock of a
    machine that crashed may stay. If no process uses the folder, delete the lock file. On a file system
    without locks, a warning is printed, and the `with` block runs without a lock.
    """
    others = os.path.exists(path) and not os.access(path, os.W_OK)
    with open(path, "rb" if others else "wb") as file:
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if busy:
                    raise InputError(busy) from None
                print(f"waiting for another process, which holds the lock {path}", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            print(
                f"warning: {path}: this file system has no locks ({error.strerror}); make sure that no second"
                " process writes to this folder."
            )
        yield
