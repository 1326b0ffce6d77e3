"""The one exception that means: the user can cure this."""


class InputError(Exception):
    """Bad input from outside: one sentence that names the file or flag and the cure.

    `core.runtime.cli` prints it and exits with 1.
    """
