"""Collect remarks about files that are read in an unexpected way or not used, to print them as warnings.

Examples: a photo is rotated by its EXIF tag, a white level was detected, some files are not used.

A remark is a list [kind, sentence]. A function that reads a file calls `add`. The caller of this function
collects the remarks with `collect` and prints their `summary`. Remarks are not part of return values, so
the signatures of the reading functions stay simple. A cache of decoded images stores the remarks about its
files, so that each command that uses the cache can print the remarks.
"""

import contextlib
import contextvars

_collected = contextvars.ContextVar("collected", default=None)


def add(kind, sentence):
    """Append a remark about a file to the list that `collect` has yielded in this thread.

    Outside of the `with` blocks of `collect`, the remark is dropped.

    kind: text; `summary` makes one line of all remarks of the same kind. sentence: text that names the file.
    """
    collected = _collected.get()
    if collected is not None:
        collected.append([kind, sentence])


@contextlib.contextmanager
def collect():
    """Context manager that yields a list, to which `add` appends remarks while the `with` block runs.

    Calls of `add` in other threads do not append to this list.
    """
    collected = []
    token = _collected.set(collected)
    try:
        yield collected
    finally:
        _collected.reset(token)


def summary(remarks):
    """Return a list of lines for printing, one for each kind of remark. remarks: list of [kind, sentence].

    A line is the sentence of the first remark of the kind. If there are several remarks of the kind, the
    line ends with their number.
    """
    first, counts = {}, {}
    for kind, sentence in remarks:
        first.setdefault(kind, sentence)
        counts[kind] = counts.get(kind, 0) + 1
    return [
        sentence if counts[kind] == 1 else f"{sentence} ({counts[kind]} such files in total)"
        for kind, sentence in first.items()
    ]
