"""Digests of the code that determines a run's results, stored in the run folder as code.json.

code.json is a list. Each item states which code trained the run, beginning with an epoch and a step:
`epoch`, `step`, `files` (path -> digest) and `versions` (TensorFlow and NumPy). The list has one item
unless the run was continued with other code. Runs of old versions have no code.json.

The files are the experiment's script and every project file that it imports, directly or indirectly,
except networks that it does not use and files that do not affect results (DECIDE_NOTHING).
Comments, docstrings and blank lines do not count. A function in one of these modules that was replaced
at run time, for example in a notebook, has its own digest under the name FILE:FUNCTION.
"""

import ast
import functools
import hashlib
import inspect
import io
import json
import sys
import tokenize
from pathlib import Path

import numpy as np
import tensorflow as tf

from core.runtime import files

ROOT = Path(__file__).parents[2]  # the folder of the packages `core` and `experiments`

# Folders and files that affect no weight and no metric. Flags and data are checked separately.
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
    "core/training/history.py",
    "core/training/signals.py",
    "core/training/tensorboard.py",
)


def current(experiment, root=ROOT):
    """Return the digests of an experiment's code: path relative to root -> 16 hexadecimal digits.

    experiment: `core.experiment.Experiment`; its name is the name of its script. The result is empty if
    there is no such script, for example because the experiment is defined in a notebook.
    """
    script = root / "experiments" / f"{experiment.name}.py"
    networks = {_file_of(experiment.forward, root), _file_of(experiment.init_weights, root)}
    pending, digests = [script] if script.is_file() else [], {}
    while pending:
        path = pending.pop()
        name = path.relative_to(root).as_posix()
        if name in digests or name.startswith(DECIDE_NOTHING):
            continue
        source = path.read_text("utf-8")
        digests[name] = hashlib.sha256(_statements(source).encode()).hexdigest()[:16]
        tree = ast.parse(source)
        imported = _imported_files(tree, path, root)
        if path == script:  # a script may offer several networks
            imported = [each for each in imported if each.parent.name != "models" or each in networks]
        pending += imported
        digests |= _replaced_functions(tree, name) if root == ROOT else {}
    return dict(sorted(digests.items()))


def combined(digests):
    """Return one digest, 16 hexadecimal digits, of a dict of digests."""
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]


def read(folder):
    """Return the items of a run's code.json, oldest first; an empty list without a readable file."""
    try:
        items = json.loads((folder / "code.json").read_text("utf-8"))
        return [item for item in items if isinstance(item["files"], dict)]
    except (OSError, ValueError, KeyError, TypeError):  # a missing record must not stop the command
        return []


def changed_files(before, now):
    """Return the sorted paths whose digests differ between two dicts, missing ones included."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def warn_if_changed(folder, experiment):
    """Print one warning that names the files that changed since the run was last trained, if there are any.

    Commands that use a trained run call this. experiment: its `Experiment`. Nothing is printed for a run
    without code.json.
    """
    items = read(folder)
    changed = changed_files(items[-1]["files"], current(experiment)) if items else []
    if changed:
        print(
            f"warning: {folder} was trained with other code; files changed since then: {', '.join(changed)}."
        )


def record(folder, experiment, *, epoch, step, write):
    """Record in code.json which code trains a run from this epoch and step on.

    If the run was begun with other code, or other versions of TensorFlow or NumPy, print one warning
    that names them. experiment: its `Experiment`. epoch, step: the progress of training; if both are 0, a
    new record begins. write: True if this process writes the run folder's files.
    """
    item = {
        "epoch": epoch,
        "step": step,
        "files": current(experiment),
        "versions": {"tensorflow": tf.__version__, "numpy": np.__version__},
    }
    items = read(folder) if epoch or step else []
    if items:
        differing = changed_files(items[-1]["files"], item["files"])
        before = items[-1].get("versions", {})
        differing += [
            f"{name} ({before.get(name)}, now {version})"
            for name, version in item["versions"].items()
            if before.get(name) != version
        ]
        if not differing:
            return
        print(
            f"warning: {', '.join(differing)} changed since {folder} was last trained: from here on, the"
            " run is no longer bit-identical to an uninterrupted one."
        )
    if write:
        files.write_text(folder / "code.json", json.dumps([*items, item], indent=2) + "\n")


def _file_of(function, root):
    """Return the file, under root, of the module that defines a function; partials are unwrapped."""
    while isinstance(function, functools.partial):
        function = function.func
    return root.joinpath(*function.__module__.split(".")).with_suffix(".py")


def _replaced_functions(tree, name):
    """Return NAME:FUNCTION -> digest for the functions of a module that differ from those in its file.

    tree: the parsed file; name: its path, such as core/ops.py. Empty if the module is not imported.
    """
    module, found = sys.modules.get(name.removesuffix(".py").replace("/", ".")), {}
    for node in tree.body if module else ():
        function = vars(module).get(getattr(node, "name", None))
        if not inspect.isfunction(function) or not isinstance(node, ast.FunctionDef):
            continue
        if (function.__module__, function.__name__) != (module.__name__, node.name):
            code = function.__code__
            constants = [each for each in code.co_consts if not inspect.iscode(each)]
            text = repr((code.co_code, code.co_names, constants))
            found[f"{name}:{node.name}"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def _imported_files(tree, path, root):
    """Return the files of `core` and `experiments` that a parsed file imports, at any place in the file."""
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


def _statements(source):
    """Return Python source without comments, docstrings and blank lines.

    Texts are compared instead of syntax trees, because the trees differ between versions of Python.
    """
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_string(body[0]):
            docstring = body[0]
            lines[docstring.lineno - 1 : docstring.end_lineno] = [""] * (
                docstring.end_lineno - docstring.lineno + 1
            )
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _is_string(node):
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
