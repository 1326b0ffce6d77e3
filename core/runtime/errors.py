"""The exception for mistakes that the user can cure, and a block whose failure is only a warning."""

import contextlib


class InputError(Exception):
    """Bad input from outside. The message is one sentence that names the file or flag and the cure.

    `core.runtime.cli` prints it and exits with 1.
    """


@contextlib.contextmanager
def warn_on_failure(what):
    """A block whose failure prints one warning line and is then ignored. what: the thing it makes."""
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"warning: {what} could not be made ({reason}); everything else goes on.")
