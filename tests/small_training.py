"""Small trainings of two experiments, which can kill their process at a chosen moment.

run(name, run_dir, cache_dir, data_dir)                   trains to the end
run(name, run_dir, cache_dir, data_dir, (victim, call))   dies in the given call of a function

victim: the name of the function's task, see `_let_die`. call: the number of the call, counted from 1.
"""

import csv
import dataclasses
import io
import os
import signal
import types
import zlib

import numpy as np
from small_networks import small

from core.data import cache
from core.models import dubai_unet, road_unet
from core.runs import checkpoint
from core.runtime import cli
from core.training import loop
from experiments import article

SMALL = {  # name -> (flags, and the fields of the experiment that a smaller network replaces)
    "cityscape_road": (["--size=16", "--batch_size=2"], small(road_unet)),
    "dubai_aerial": (
        ["--patch_size=16", "--split_by=image", "--batch_size=12"],
        small(dubai_unet, classes=6),
    ),
}


def run(name, run_dir, cache_dir, data_dir, death=None, arguments=()):
    """Train a small network with a checkpoint after every step; return the exit code.

    name: a key of SMALL. death: None, or the pair (victim, call) that the module's docstring describes.
    arguments: further flags.
    """
    script = article(name)
    arguments_of_small, network = SMALL[name]
    flags = cli.parse(
        script.define_flags,
        [
            "--limit=5",
            "--epochs=3",
            "--checkpoint_every=0",
            *arguments_of_small,
            f"--run_dir={run_dir}",
            f"--cache_dir={cache_dir}",
            f"--data_dir={data_dir}",
            *arguments,
        ],
    )
    experiment = dataclasses.replace(script.experiment(flags), **network)
    loop.LOSS_SYNC_SECONDS, cache.BLOCK = -1, 2
    if death:
        _let_die(*death)
    return loop.run(experiment, script.define_flags, flags)


def contents(folder):
    """Return a dict of the contents of a run folder that interruptions of the training must not change."""
    arrays, state = checkpoint.load(folder / "checkpoints" / "last.npz")
    best, _ = checkpoint.load(folder / "checkpoints" / "best.npz")
    with open(folder / "metrics.csv") as file:
        table = [
            {name: cell for name, cell in row.items() if "second" not in name} for row in csv.DictReader(file)
        ]
    return {
        "last": {name: array.tobytes() for name, array in arrays.items()},
        "best": {name: array.tobytes() for name, array in best.items()},
        "data": state["data"],
        "history": str(  # as text, because NaN does not equal NaN
            [{name: value for name, value in row.items() if "second" not in name} for row in state["history"]]
        ),
        "table": table,
        "pictures": {path.name: path.read_bytes() for path in (folder / "predictions").iterdir()},
    }


def _let_die(victim, call):
    """Replace a function so that the process kills itself in call number `call`, counted from 1.

    victim: which function is replaced. "preparation": computes a checksum for the cache. "step": runs
    a training step. "checkpoint": calls `np.savez`, first for data_split.npz and then for each checkpoint;
    the process dies when half of the file is written. "rename": renames a file.
    """
    calls = []

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def dying(function):
        def wrapper(*args, **options):
            calls.append(1)
            if len(calls) == call:
                die()
            return function(*args, **options)

        return wrapper

    def save_a_part(file, **arrays):
        calls.append(1)
        whole = io.BytesIO()
        savez(whole, **arrays)
        file.write(whole.getvalue()[: whole.tell() // 2] if len(calls) == call else whole.getvalue())
        if len(calls) == call:
            file.flush()
            die()

    savez = np.savez
    if victim == "preparation":
        cache.zlib = types.SimpleNamespace(crc32=dying(zlib.crc32))  # two calls per photo
    elif victim == "step":
        make = loop.make_train_step
        loop.make_train_step = lambda *args, **options: dying(make(*args, **options))
    elif victim == "checkpoint":
        np.savez = save_a_part
    elif victim == "rename":
        os.replace = dying(os.replace)
