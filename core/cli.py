"""From a command line to a function, and from a user's mistake to one sentence."""

import sys

from absl import app, flags

from core import settings
from core.errors import InputError


def main(define_flags, run, *, arguments=False):
    """Define flags, parse the command line, call run(flags), end the process.

    Where arguments is True, what is no flag is passed on as a list: run(flags, [...]).
    Exit code 1 for what the user can cure, said in one sentence on stderr; 130
    and 143 where SIGINT or SIGTERM stopped a training that saved its state.
    """
    define_flags(flags.FLAGS)
    for name in settings.parse(define_flags):  # lists them in --help, wherever they are defined
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])

    def guarded(argv):
        if len(argv) > 1 and not arguments:
            raise app.UsageError(f"unexpected argument {argv[1]!r}: flags begin with --.")
        try:
            sys.exit(run(flags.FLAGS, argv[1:]) if arguments else run(flags.FLAGS))
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            sys.exit(130)
        except InputError as error:
            sys.exit(f"error: {error}")
        except OSError as error:
            sys.exit(f"error: {error.filename or 'file system'}: {error.strerror or error}.")

    app.run(guarded)

