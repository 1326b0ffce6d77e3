"""Parse a command line and run a command; print one sentence if the user made a mistake."""

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

    define_flags: a function that defines flags in a given `flags.FlagValues`.
    run: the function that does the command's work. Its return value is the exit code.
    arguments: if True, the command line may hold arguments that are not flags. Then run is called with a list
    of these arguments too: run(flags, [...]).

    Each command also has the flags --help, -h and --version, which print text and exit. If the script is
    DIR/NAME.py and the file DIR/best/NAME.cfg exists, the command also has the flag --best, which reads flags
    from this file. Flags on the command line override the flags in the file.

    Exit codes if run does not return:
    1: an error that the user can correct; one sentence on stderr describes the error.
    130: the user pressed Ctrl-C.
    141: stdout is a closed pipe, as with `| head`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A log file gets each line when it is printed. Characters that the encoding of stdout cannot
        # represent are printed as escapes, such as \udcff. Python always prints them so to stderr.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    define_flags(flags.FLAGS)
    best = Path(sys.argv[0]).with_name("best") / Path(sys.argv[0]).with_suffix(".cfg").name
    names = [*parse(define_flags), *_define_options(flags.FLAGS, best)]
    for name in names:  # --help lists only the flags that are registered as key flags of the script
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])

    def called(argv):
        """Call `run`. argv: the name of the command, then the arguments that are not flags."""
        sys.exit(run(flags.FLAGS, argv[1:]) if arguments else run(flags.FLAGS))

    def parser(argv):
        """Parse the command line `argv`; return the list of arguments for `called`."""
        try:
            return read_command_line(flags.FLAGS, argv, best, arguments=arguments)
        except SystemExit:  # --help, --version: exit with 0; absl would exit with 1 after --help
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
        # otherwise Python would flush stdout at exit and print a message about the closed pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
    except (InputError, OSError, MemoryError, tf.errors.ResourceExhaustedError) as error:
        sys.exit(f"error: {' '.join(_sentence(error).splitlines())}")
    except tf.errors.InternalError as error:  # raised if a GPU lacks the memory for a copy
        if "Dst tensor is not initialized" not in error.message:
            raise
        sys.exit(f"error: {_sentence(error)}")


def _sentence(error):
    """Return one sentence that tells the user what to do about an error."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        place, what = error.filename or "file system", error.strerror or error
        cure = "check that it exists and that you may access it"
        return f"{place}: {what}; {'name another place' if error.errno in files.UNFIT else cure}."
    return (
        "out of memory: use a larger machine, a GPU that no other process uses, or a smaller --batch_size or"
        " --tile (if the command has it)."
    )


def _define_options(values, best):
    """Define the flags --version and --best, so that --help lists them; return the names of these flags.

    --best is defined only if the file `best` exists. values: the `flags.FlagValues` to define the flags in.
    `read_command_line` handles both flags.
    """
    options = {"version": "Print the version and exit."}
    if best.is_file():
        options["best"] = f"Use the flags in {best}; flags on the command line override them."
    for name, text in options.items():
        flags.DEFINE_bool(name, False, text, flag_values=values)
    return list(options)


def read_command_line(values, argv, best, *, arguments=False):
    """Parse the command line as `read` does, but also handle -h, --version and --best.

    -h is replaced by --help. --version prints the version and exits. If the file `best` exists, --best is
    replaced by --flagfile with this file. This flag is put first, so that all other flags override it. Raises
    InputError if `read` does, or if --best is given as -best, as --best=true or in a flagfile.
    """
    is_best = "best" in values and "--best" in argv[1:]
    rest = [each for each in argv[1:] if each != "--best"] if is_best else argv[1:]
    first = [f"--flagfile={best}"] if is_best else []
    expanded = [argv[0], *first, *("--help" if each == "-h" else each for each in rest)]
    found = read(values, expanded, arguments=arguments)
    if values["version"].value:
        print(f"raw-unet {core.__version__}, tensorflow {tf.__version__}")
        sys.exit(0)
    if "best" in values and values["best"].value:
        raise InputError("--best: give this flag on the command line, and exactly as --best.")
    return found


def parse(define_flags, arguments=()):
    """Define flags, parse a list of arguments, and return the flags as `flags.FlagValues`.

    define_flags: as for `main`. arguments: the command line without the name of the command.
    Raises InputError if an argument cannot be parsed.
    """
    values = flags.FlagValues()
    define_flags(values)
    read(values, ["", *arguments])
    return values


def read(values, argv, *, arguments=False):
    """Parse a command line into `flags.FlagValues`; return a list of the arguments that are not flags.

    values: the `flags.FlagValues`, in which the flags are defined. argv: the command line, a list. Its first
    item, the name of the command, is also the first item of the returned list.
    Raises InputError if a flag cannot be parsed, is not UTF-8, has no value or an empty value, or if a value
    begins with ~/. If the parameter `arguments` is False, also raises InputError for an argument that is not
    a flag.
    """
    _refuse_missing_values(values, argv)
    _refuse_home(argv[1:])
    try:
        rest = values(argv)
    except BrokenPipeError:  # stdout was closed while --help was printed; `main` handles this error
        raise
    except (flags.Error, OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        names = [each.partition("=")[0].lstrip("-") for each in argv[1:] if each.startswith("-")]
        if not any(name in reason for name in names if name not in ("", "flagfile")):
            # no flag of the command line is wrong, so the error comes from a flagfile
            reason = ": ".join([*filter(None, _flagfiles(argv)), reason])
        reason = reason.replace(". Did you mean", ", did you mean").rstrip(". ?")
        raise InputError(f"{reason}; see --help.") from None
    _refuse_empty(values, rest[1:], _flagfiles(argv))
    for each in argv:
        if each not in rest and not files.is_utf8(each):
            raise InputError(f"{each}: not in UTF-8; change the name.")
    if rest[1:] and not arguments:
        raise InputError(f"unexpected argument {rest[1]!r}; remove it, or begin it with -- if it is a flag.")
    return rest


def _refuse_missing_values(values, argv):
    """Raise InputError if a flag that needs a value is followed by another flag, as in `--run_dir --seed=1`.

    absl would take the second flag for the value of the first flag.
    """
    words = argv[1 : argv.index("--")] if "--" in argv else argv[1:]
    for word, value in zip(words, words[1:]):
        name = word.lstrip("-")
        if word != name and name in values and not values[name].boolean and value.startswith("--"):
            raise InputError(f"{word}: the value is missing; if {value} is the value, write {word}={value}.")


def _refuse_home(words):
    """Raise InputError for a word of a command line such as --run_dir=~/runs, whose ~ no shell replaces."""
    for word in words:
        if word.partition("=")[2].startswith("~/") and not word.lstrip("-").startswith("flagfile="):
            raise InputError(f"{word}: ~ is not replaced by the home folder here; write the whole path.")


def _refuse_empty(values, arguments, flagfiles):
    """Raise InputError for an empty argument, and for a flag whose value is empty but not its default.

    arguments: the arguments that are not flags. flagfiles: the names of the flagfiles. absl would ignore a
    flagfile with an empty name.
    """
    texts = [(f"--{name}", values[name].value) for name in values if values[name].default != ""]
    texts += [("argument", each) for each in arguments] + [("--flagfile", each) for each in flagfiles]
    for name, text in texts:
        if text == "":
            raise InputError(
                f"{name}: is empty, for example because a shell variable is not set; give a value or leave"
                " it out."
            )


def _flagfiles(argv):
    """Return the names of the flagfiles in a command line: FILE of --flagfile=FILE and of --flagfile FILE."""
    names = []
    for word, following in zip(argv, [*argv[1:], ""]):
        flag, equals, name = word.partition("=")
        if flag in ("-flagfile", "--flagfile"):
            names.append(name if equals else following)
    return names
