"""From a command line to a function, and from a user's mistake to one sentence."""

import sys

import tensorflow as tf
from absl import app, flags

from core.runtime import files
from core.runtime.errors import InputError


def main(define_flags, run, *, arguments=False):
    """Define flags, parse the command line, call run(flags), end the process.

    Where arguments is True, what is no flag is passed on as a list: run(flags, [...]).
    Exit code 1 for what the user can cure, said in one sentence on stderr; 130
    and 143 where SIGINT or SIGTERM stopped a training that saved its state.
    """
    define_flags(flags.FLAGS)
    for name in parse(define_flags):  # lists them in --help, wherever they are defined
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])

    def called(argv):
        sys.exit(run(flags.FLAGS, argv[1:]) if arguments else run(flags.FLAGS))

    try:
        app.run(called, flags_parser=lambda argv: read(flags.FLAGS, argv, arguments=arguments))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except InputError as error:
        reason = str(error)
    except (tf.errors.ResourceExhaustedError, MemoryError):
        reason = "out of memory: take a smaller --batch_size, or a smaller --tile where there is one."
    except OSError as error:
        place, what = error.filename or "file system", error.strerror or error
        reason = f"{place}: {what}; see that it is there and may be used."
    sys.exit(f"error: {' '.join(reason.splitlines())}")


def parse(define_flags, arguments=()):
    """`flags.FlagValues` with the flags of one function alone, from a list of arguments.

    Raises InputError for what does not parse.
    """
    values = flags.FlagValues()
    define_flags(values)
    read(values, ["", *arguments])
    return values


def read(values, argv, *, arguments=False):
    """Parse a command line into `flags.FlagValues`; the rest of it, the command's name first.

    Raises InputError for what does not parse or print, and unless arguments for a rest.
    """
    try:
        rest = values(argv)
    except (flags.Error, OSError, ValueError, RecursionError) as error:  # of flagfiles, too
        flagfiles = [] if isinstance(error, flags.Error) else [each for each in argv if "flagfile" in each]
        reason = ": ".join([*flagfiles, " ".join(str(error).split())])
        reason = reason.replace(". Did you mean", ", did you mean").rstrip(". ?")
        raise InputError(f"{reason}; see --help.") from None
    for each in argv:
        if each not in rest and not files.is_utf8(each):
            raise InputError(f"{each}: not in UTF-8; change the name.")
    if rest[1:] and not arguments:
        raise InputError(f"unexpected argument {rest[1]!r}; remove it, flags begin with --.")
    return rest
