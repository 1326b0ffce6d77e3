"""The exception for mistakes that the user can correct, and a function that prints exceptions as warnings."""

import contextlib


class InputError(Exception):
    """A mistake that the user can correct.

    The message names the file or flag, describes the mistake, and tells the user how to correct it.
    `core.runtime.cli` prints the message and exits with the code 1.
    """


@contextlib.contextmanager
def warn_on_failure(what):
    """Context manager that prints a warning if its `with` block raises an exception.

    The exception is suppressed, so the program continues after the `with` block. what: the name of the
    file or result that this block writes.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"warning: {what} could not be written ({reason}); the program continues.")
