"""Run a function from a command line; report a user's mistake as one sentence."""

import io
import os
import sys
from pathlib import Path

import tensorflow as tf
from absl import app, flags

import core
from core.runtime import files
from core.runtime.errors import InputError


def main(define_flags, run, *, arguments=False):
    """Define flags, parse the command line, call run(flags) and exit.

    If arguments is True, the arguments that are not flags are passed on as a list: run(flags, [...]).
    -h and --version print and exit. If `best/NAME.cfg` is in the folder of the script NAME.py, --best reads
    that flagfile, and flags given on the command line take precedence over it.
    Exit codes: what run returns; 1 for a mistake that the user can correct, with one sentence on stderr;
    130 and 143 if SIGINT or SIGTERM stopped a training that saved its state; 141 if the reader of
    stdout has gone, as with `| head`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # lines reach a log file as they are printed
    define_flags(flags.FLAGS)
    best = Path(sys.argv[0]).with_name("best") / Path(sys.argv[0]).with_suffix(".cfg").name
    names = [*parse(define_flags), *_define_options(flags.FLAGS, best)]
    for name in names:  # list them in --help, whichever module defines them
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])

    def called(argv):
        sys.exit(run(flags.FLAGS, argv[1:]) if arguments else run(flags.FLAGS))

    def parser(argv):
        try:
            return read(flags.FLAGS, _expanded(argv, best), arguments=arguments)
        except SystemExit:  # absl's --help, which exits with 1
            sys.exit(0)

    try:
        try:
            app.run(called, flags_parser=parser)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # otherwise Python reports the closed pipe at exit
        sys.exit(141)
    except (InputError, OSError, MemoryError, tf.errors.ResourceExhaustedError) as error:
        sys.exit(f"error: {' '.join(_sentence(error).splitlines())}")


def _sentence(error):
    """Return one sentence that tells the user what to do about an error."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        place, what = error.filename or "file system", error.strerror or error
        return f"{place}: {what}; see that it is there and may be used."
    return "out of memory: take a smaller --batch_size, or a smaller --tile where there is one."


def _define_options(values, best):
    """Define the flags that `_expanded` handles, so that --help lists them; return their names."""
    options = {"version": "Print the version and exit."}
    if best.is_file():
        options["best"] = f"Take the settings of {best} where the command line gives no others."
    for name, text in options.items():
        flags.DEFINE_bool(name, False, text, flag_values=values)
    return list(options)


def _expanded(argv, best):
    """Replace -h and --best in a command line; print the version and exit for --version."""
    if "--version" in argv[1:]:
        print(f"raw-unet {core.__version__}, tensorflow {tf.__version__}")
        sys.exit(0)
    if best.is_file() and "--best" in argv[1:]:
        argv = [argv[0], f"--flagfile={best}", *(each for each in argv[1:] if each != "--best")]
    return ["--help" if each == "-h" else each for each in argv]


def parse(define_flags, arguments=()):
    """Parse a list of arguments into `flags.FlagValues` that hold only the flags of one function.

    Raises InputError for arguments that do not parse.
    """
    values = flags.FlagValues()
    define_flags(values)
    read(values, ["", *arguments])
    return values


def read(values, argv, *, arguments=False):
    """Parse a command line into `flags.FlagValues`; return the other arguments, the command's name first.

    Raises InputError for flags that do not parse and text that cannot be printed; if arguments is
    False, also for arguments that are not flags.
    """
    try:
        rest = values(argv)
    except BrokenPipeError:  # while --help was printed
        raise
    except (flags.Error, OSError, ValueError, RecursionError) as error:  # also raised for flagfiles
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
