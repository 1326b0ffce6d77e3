"""Remarks about files that are read in a way that their owner may not expect.

Examples: a photo turned by its EXIF tag, a white level that was detected, unused files.

A reader calls `add`; whoever called the reader collects the remarks and prints them. The
remarks travel beside the pixels, so that readers keep their simple signature and a cache
can repeat the remarks each time that its pixels are used.
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
    """Yield the list of [kind, sentence] that `add` records in this thread within the block."""
    collected = []
    token = _collected.set(collected)
    try:
        yield collected
    finally:
        _collected.reset(token)


def summary(remarks):
    """Return a line for each kind: its first sentence, and the number of files if there are more."""
    first, counts = {}, {}
    for kind, sentence in remarks:
        first.setdefault(kind, sentence)
        counts[kind] = counts.get(kind, 0) + 1
    return [
        sentence if counts[kind] == 1 else f"{sentence} ({counts[kind]} files like this one)"
        for kind, sentence in first.items()
    ]
