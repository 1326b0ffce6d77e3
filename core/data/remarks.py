"""Remarks about files that are read in a way that their owner may not expect.

Examples: a photo rotated by its EXIF tag, a white level that was detected, unused files.

A reader calls `add`; the reader's caller collects the remarks and prints them. Remarks are
not part of a reader's return value, so readers keep a simple signature, and a cache can
repeat the remarks each time that its pixels are used.
"""

import contextlib
import contextvars

_collected = contextvars.ContextVar("collected", default=None)


def add(kind, sentence):
    """Record a sentence about a file. Remarks of the same kind are summarised in one line."""
    collected = _collected.get()
    if collected is not None:
        collected.append([kind, sentence])


@contextlib.contextmanager
def collect():
    """Context manager that yields the list of the [kind, sentence] recorded by `add` in this thread."""
    collected = []
    token = _collected.set(collected)
    try:
        yield collected
    finally:
        _collected.reset(token)


def summary(remarks):
    """Return one line per kind: its first sentence, and the number of files if there are several."""
    first, counts = {}, {}
    for kind, sentence in remarks:
        first.setdefault(kind, sentence)
        counts[kind] = counts.get(kind, 0) + 1
    return [
        sentence if counts[kind] == 1 else f"{sentence} ({counts[kind]} files like this one)"
        for kind, sentence in first.items()
    ]
