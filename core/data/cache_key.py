"""The key of a cache: a digest of the files, the settings and the code that determine its arrays."""

import functools
import hashlib
import inspect
import itertools
import json
import os
from pathlib import Path

from core.data import colours, images, patches, samples
from core.runtime.errors import InputError
from core.runtime.files import is_utf8

LAYOUT = 2  # increase it when the meaning of index.json changes
# modules that decoding uses in addition to the reader's own module
READING = (colours, images, patches, samples)


def digest(dataset, files):
    """Return a digest, 16 hexadecimal digits, of everything that the arrays depend on except the split.

    Both splits may share a cache if they consist of the same files. Change times are left out:
    hard links, chmod and chown do not change a file's content. Whether a file may be read is
    part of the key, so that files left out as unreadable are read when they become readable.
    Raises InputError for a path that is not valid UTF-8.
    """
    result = hashlib.sha256(f"layout {LAYOUT}\n{_arguments(dataset.read)}\n".encode())
    for source in (source_file(dataset.read), *(module.__file__ for module in READING)):
        result.update(Path(source).read_bytes())
    result.update(json.dumps(dict(dataset.settings), sort_keys=True).encode())
    for path in itertools.chain.from_iterable(files):
        status, name = path.stat(), os.path.abspath(path)
        if not is_utf8(name):
            raise InputError(f"{name}: not in UTF-8; change the name.")
        readable = os.access(path, os.R_OK)
        entry = f"{name}\n{status.st_size} {status.st_mtime_ns} {readable}\n"
        result.update(entry.encode())
    return result.hexdigest()[:16]


def source_file(function):
    """Return the path of the source file that defines a function, also for partials and callable objects."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if not (inspect.isroutine(function) or inspect.isclass(function)):
        function = type(function)
    return inspect.getfile(function)


def _arguments(function):
    """Return the bound arguments of a `functools.partial` as text, and "" for other functions."""
    if not isinstance(function, functools.partial):
        return ""
    bound = [_arguments(function.func), function.args, function.keywords]
    return json.dumps(bound, sort_keys=True, default=lambda value: type(value).__qualname__)
