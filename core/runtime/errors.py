"""The exception for mistakes that the user can cure."""


class InputError(Exception):
    """Bad input from outside. The message is one sentence that names the file or flag and the cure.

    `core.runtime.cli` prints it and exits with 1.
    """
