"""Remarks about files that can be read, but not as plainly as their owner may expect.

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
    """One line for each kind: the first sentence, and the number of files if there are more."""
    first, counts = {}, {}
    for kind, sentence in remarks:
        first.setdefault(kind, sentence)
        counts[kind] = counts.get(kind, 0) + 1
    return [
        sentence if counts[kind] == 1 else f"{sentence} ({counts[kind]} files like this one)"
        for kind, sentence in first.items()
    ]
