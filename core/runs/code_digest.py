"""Compute digests of the code that determines a run's results, and store them in the run folder.

The file code.json is a list of JSON objects. Each object describes the code that trained the run from a
certain epoch and step on, and has these fields:

    epoch, step    the progress of the training when this code began to train the run
    files          digests of project files: path -> digest
    versions       versions of TensorFlow and NumPy: package -> version

The list of a new run has one object. Each time that the run is continued with other code or other versions,
an object is added. Runs that were trained by old versions of this project have no code.json.

`files` contains a digest of the experiment's script, and of each project file that the script imports,
directly or indirectly. Left out are the files in DECIDE_NOTHING and, if `current` finds which network the
experiment uses, the other networks. A digest does not depend on the file's comments, docstrings or blank
lines. If a function or a constant of these files was replaced at run time, for example in a notebook, `files`
also contains a digest of the new one, under the name FILE:NAME. Replaced fields of an `Experiment` are not
recorded.
"""

import ast
import contextlib
import functools
import hashlib
import inspect
import io
import json
import re
import sys
import tokenize
from pathlib import Path

import numpy as np
import tensorflow as tf

from core.runtime import files
from core.runtime.errors import InputError

ROOT = Path(__file__).parents[2]  # the folder of the packages `core` and `experiments`

# Folders and files that have no digest. They are rarely edited, and most of them affect results only through
# images, flags or the device, which a run records elsewhere.
DECIDE_NOTHING = (
    "core/__init__.py",
    "core/experiment.py",
    "core/runtime/",
    "core/runs/",
    "core/data/synthetic/",
    "core/data/membership.py",
    "core/data/remarks.py",
    "core/inference/per_image.py",
    "core/inference/render.py",
    "core/training/common_flags.py",
    "core/training/signals.py",
    "core/training/tensorboard.py",
)


def current(experiment, root=ROOT):
    """Return the digests of the code that determines an experiment's results, a dict: path -> digest.

    A path is relative to root. A digest has 16 hexadecimal digits. The dict is empty if no script has the
    name of the experiment, for example because the experiment is defined in a notebook.

    experiment: `core.experiment.Experiment`. root: the folder of the packages `core` and `experiments`.
    Raises InputError if a file is not valid Python, for example because it is being edited.
    """
    script = root / "experiments" / f"{experiment.name}.py"
    networks = {_file_of(experiment.forward, root), _file_of(experiment.init_weights, root)}
    pending, digests = [script] if script.is_file() else [], {}
    while pending:
        path = pending.pop()
        name = path.relative_to(root).as_posix()
        if name in digests or name.startswith(DECIDE_NOTHING):
            continue
        try:
            with tokenize.open(path) as file:  # follows a byte order mark or a coding comment, as Python does
                source = file.read()
            tree, statements = _parsed(source), _statements(source)
        except (SyntaxError, UnicodeDecodeError, tokenize.TokenError) as error:
            raise InputError(f"{path}: not valid Python ({error}); correct this file.") from None
        digests[name] = hashlib.sha256(statements.encode()).hexdigest()[:16]
        imported = _imported_files(tree, path, root)
        # A script may import several networks, but the experiment uses only one of them. If the script wraps
        # this network in a function, the network's file is unknown, and all imported networks get a digest.
        if path == script and networks <= set(imported):
            imported = [each for each in imported if each in networks or not _is_network(each)]
        pending += imported
        digests |= _replaced(tree, name) if root == ROOT else {}
    return dict(sorted(digests.items()))


def combined(digests):
    """Combine a dict of digests, path -> digest, into one digest of 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]


def read(folder):
    """Return the list of objects in the code.json of a run folder, oldest first.

    Each object is a dict, see the docstring of this module. The list is empty if the file is missing or
    damaged.
    """
    try:
        items = json.loads((folder / "code.json").read_text("utf-8"))
        return [item for item in items if isinstance(item["files"], dict)]
    except (OSError, ValueError, KeyError, TypeError):  # without code.json, a command can still do its work
        return []


def changed_files(before, now):
    """Return the sorted paths whose digests differ between two dicts, path -> digest.

    A path that is in only one of the dicts counts as different.
    """
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def warn_if_changed(folder, experiment):
    """Print a warning that names the changed files if the code has changed since a run was last trained.

    Commands that use a trained run call this function. Prints nothing if the run has no code.json. folder:
    the run folder. experiment: the run's `Experiment`.
    """
    items = read(folder)
    changed = changed_files(items[-1]["files"], current(experiment)) if items else []
    if changed:
        print(
            f"warning: {folder} was trained with other code; files changed since then: {', '.join(changed)}."
        )


def record(folder, experiment, *, epoch, step, write):
    """Record in code.json which code trains a run from now on.

    - Objects that begin at this position or later are removed, because their steps were not saved.
    - A new run, or a run without code.json, gets a new code.json with one object.
    - If a run is continued with the code and the versions that last trained it, nothing is written.
    - If a run is continued with other code, or with another version of TensorFlow or NumPy, an object is
      added to code.json, and a warning names the differences.

    Also prints a warning that names the files that were edited after this process began.

    folder: the run folder. experiment: the run's `Experiment`. epoch, step: the progress of the training,
    both 0 for a new run. write: if False, code.json is not written, and only the warnings are printed. In a
    distributed training, one worker writes the file for all workers.
    """
    item = {
        "epoch": epoch,
        "step": step,
        "files": current(experiment),
        "versions": {"tensorflow": tf.__version__, "numpy": np.__version__},
    }
    edited = [name for name in item["files"] if ":" not in name and files.edited_since_start(ROOT / name)]
    if edited:
        print(
            f"warning: {', '.join(edited)}: edited after this process began; this run may be trained by the"
            " old code, so restart Python."
        )
    old = read(folder)
    # an object of this position or a later one belongs to steps that were lost, because they were not saved
    items = [each for each in old if (each.get("epoch", 0), each.get("step", 0)) < (epoch, step)]
    differing = []
    if items:
        differing = changed_files(items[-1]["files"], item["files"])
        before = items[-1].get("versions", {})
        differing += [
            f"{name} ({before.get(name)}, now {version})"
            for name, version in item["versions"].items()
            if before.get(name) != version
        ]
    if differing:
        print(
            f"warning: {', '.join(differing)} changed since {folder} was last trained: from here on, the"
            " run is no longer bit-identical to an uninterrupted one."
        )
    if differing or not items:
        items.append(item)
    if write and items != old:
        files.write_text(folder / "code.json", json.dumps(items, indent=2) + "\n")


def _file_of(function, root):
    """Return the path of the file that defines a function.

    For a `functools.partial`, this is the file that defines the wrapped function. root: the folder of the
    packages `core` and `experiments`.
    """
    while isinstance(function, functools.partial):
        function = function.func
    return root.joinpath(*function.__module__.split(".")).with_suffix(".py")


def _replaced(tree, name):
    """Return the digests of the functions and constants of a module that were replaced at run time.

    Returns a dict: "FILE:NAME" -> digest of the new function or constant. A function counts as replaced if
    its name in the module now refers to anything else than the function in the file; functions with
    decorators are not checked. A constant is a name in upper case. It counts as replaced if the file assigns
    a literal to it, and its value differs. The dict is empty if the module has not been imported.

    The digests depend on the version of Python. name: the path of the module's file, such as core/ops.py.
    tree: the syntax tree of the file.
    """
    module, texts = sys.modules.get(name.removesuffix(".py").replace("/", ".")), {}
    for node in tree.body if module else ():
        if isinstance(node, ast.FunctionDef) and not node.decorator_list:
            function = vars(module).get(node.name)
            code = getattr(function, "__code__", None)
            if not code or (code.co_filename, code.co_name) != (module.__file__, node.name):
                texts[node.name] = _description(function)
        for constant, literal in _literals(node):
            text = repr(_sorted(vars(module).get(constant)))
            if text != repr(_sorted(literal)):
                texts[constant] = text
    return {f"{name}:{key}": hashlib.sha256(text.encode()).hexdigest()[:16] for key, text in texts.items()}


def _literals(node):
    """Yield (name, value) for each constant to which a statement assigns a literal."""
    if isinstance(node, ast.Assign):
        targets, values = [node.targets[0]], [node.value]
        if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
            targets, values = node.targets[0].elts, node.value.elts
        for target, value in zip(targets, values):
            with contextlib.suppress(ValueError):  # the value is no literal
                if getattr(target, "id", "").isupper():
                    yield target.id, ast.literal_eval(value)


def _description(value, within=()):
    """Return a text that describes a function, or a value that a function uses, without memory addresses.

    The text of a function contains its code, its default arguments and the values of its closure. within: the
    functions whose description is not finished. They are described by their names, because a function may be
    in its own closure.
    """
    if isinstance(value, functools.partial):
        return f"partial {_description([value.func, *value.args, *value.keywords.items()], within)}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_description(each, within) for each in value)}]"
    if inspect.isfunction(value) and value not in within:
        cells = [each.cell_contents for each in value.__closure__ or ()]
        used = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).items(), *cells]
        return f"{_code(value.__code__)} {_description(used, (*within, value))}"
    if callable(value):
        return f"{type(value)} {getattr(value, '__module__', '')} {getattr(value, '__qualname__', '')}"
    return repr(value) if isinstance(value, (int, float, str)) or value is None else str(type(value))


def _code(code):
    """Return the instructions, names and constants of a code object, and of the functions in it."""
    constants = [_code(each) if inspect.iscode(each) else _sorted(each) for each in code.co_consts]
    return code.co_code, code.co_names, constants


def _sorted(value):
    """Return a value with a sorted list in place of each set, also in lists, tuples and dicts.

    The order of a set differs between processes, and between sets with equal items.
    """
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    if isinstance(value, (list, tuple)):
        return [_sorted(each) for each in value]
    return {key: _sorted(each) for key, each in value.items()} if isinstance(value, dict) else value


def _imported_files(tree, path, root):
    """Return a list of the files of `core` and `experiments` that a Python file imports.

    Imports inside functions count too. path: the Python file. tree: the syntax tree of this file. root: the
    folder of the packages `core` and `experiments`.
    """
    modules = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = path.parents[node.level - 1].relative_to(root).parts if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            modules += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    names = [module.split(".") for module in modules]
    places = [root.joinpath(*name) for name in names if name[0] in ("core", "experiments")]
    candidates = [path for place in places for path in (place.with_suffix(".py"), place / "__init__.py")]
    return [path for path in candidates if path.is_file()]


def _is_network(path):
    """True if a Python file is a module of core/models that defines a function `forward`."""
    is_model = path.parent.name == "models"
    return is_model and re.search(rb"^def forward\(", path.read_bytes(), re.MULTILINE) is not None


_parsed = functools.cache(ast.parse)  # commands that use several runs parse each file once


@functools.cache
def _statements(source):
    """Return Python source text without comments, docstrings and blank lines.

    Digests are computed from this text, not from a syntax tree, because syntax trees differ between versions
    of Python.
    """
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(_parsed(source)):
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant(value=str())) as docstring, *_]:
                for row in range(docstring.lineno - 1, docstring.end_lineno):
                    lines[row] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())
