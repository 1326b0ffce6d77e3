"""Compute the key of a cache: a digest of the files, settings and code that determine the cached arrays."""

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

LAYOUT = 2  # increase this number when the meaning of a cache's index.json changes
# Modules whose functions decode files for `core.experiment.Dataset.read`. The digest depends on the source
# code of these modules.
READING = (colours, images, patches, samples)


def digest(dataset, files):
    """Return a digest, 16 hexadecimal digits, of the files, settings and code that the arrays depend on.

    dataset: `core.experiment.Dataset`. files: a list of tuples of paths, as `dataset.find` returns.

    The digest depends on:
    - the source files of `dataset.read` and of the modules in READING
    - `dataset.settings`, and the arguments of `dataset.read` if it is a `functools.partial`
    - LAYOUT
    - the absolute path, size, modification time and read permission of each file. The permission matters
      because an unreadable file is left out of the cache; after it becomes readable, the files are decoded
      again.

    The digest does not depend on:
    - the name of the split, so that two splits that consist of the same files share a cache
    - the inode change time, because hard links, chmod and chown change this time but not the file's content

    Raises InputError for a path that is not valid UTF-8.
    """
    result = hashlib.sha256(f"layout {LAYOUT}\n{_arguments(dataset.read)}\n".encode())
    for source in sources(dataset.read):
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


def sources(read):
    """Return the paths of the source files whose code decodes files. read: see `core.experiment.Dataset`."""
    return [source_file(read), *(module.__file__ for module in READING)]


def source_file(function):
    """Return the path of the source file that defines a function.

    For a `functools.partial`, this is the source file of the wrapped function. For a callable object, it is
    the source file of the object's class. Raises InputError if there is no file, as in a notebook.
    """
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if not (inspect.isroutine(function) or inspect.isclass(function)):
        function = type(function)
    try:
        path = inspect.getfile(function)
    except (OSError, TypeError):  # a class that was defined in a notebook
        path = ""
    if not os.path.isfile(path):
        raise InputError(f"{function}: its source file is needed; define it in a .py file and import it.")
    return path


def _arguments(function):
    """Return the bound arguments of a `functools.partial` as JSON text; "" for any other callable.

    An argument that JSON cannot represent is written as the name of its type.
    """
    if not isinstance(function, functools.partial):
        return ""
    bound = [_arguments(function.func), function.args, function.keywords]
    return json.dumps(bound, sort_keys=True, default=lambda value: type(value).__qualname__)
