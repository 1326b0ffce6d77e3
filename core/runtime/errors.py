"""The exception for mistakes that the user can correct, and a context manager for optional work."""

import contextlib


class InputError(Exception):
    """An error in the user's input. The message is one sentence that names the file or flag and the cure.

    `core.runtime.cli` prints it and exits with 1.
    """


@contextlib.contextmanager
def warn_on_failure(what):
    """Context manager that turns an exception into one warning line. what: the name of the file or result."""
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"warning: {what} could not be written ({reason}); the program continues.")
