"""List the experiments and the other commands, one line each.

Run: python -m experiments
"""

import ast
from pathlib import Path


def commands(folder):
    """Return two dicts, (experiments, others): name of a command -> first line of the script's docstring.

    folder: the folder of the scripts. A command is a script NAME.py, or a subfolder NAME with a script
    `__main__.py`. Scripts in `folder` whose names begin with "_" are left out. A command is an experiment
    if the script defines a function `experiment`; `others` holds all commands that are not experiments. The
    scripts are parsed, not imported.
    """
    experiments, others = {}, {}
    scripts = {path.stem: path for path in folder.glob("[!_]*.py")}
    scripts |= {path.parent.name: path for path in folder.glob("*/__main__.py")}
    for name, path in sorted(scripts.items()):
        tree = ast.parse(path.read_bytes())
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        kind = experiments if "experiment" in functions else others
        kind[name] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return experiments, others


def main():
    """Print one line for each experiment and each other command."""
    experiments, others = commands(Path(__file__).parent)
    width = max(map(len, experiments | others)) + 2
    print("Usage: python -m experiments.NAME. Add --help to list the flags.\n")
    for title, kind in (("Experiments", experiments), ("Other commands", others)):
        print(f"{title}:\n")
        for name, line in kind.items():
            print(f"  {name:<{width}}{line}")
        print()


if __name__ == "__main__":
    main()
