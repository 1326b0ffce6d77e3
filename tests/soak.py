"""Soak test: compare trainings that are killed repeatedly with undisturbed ones.

    python tests/soak.py --minutes=60

The five experiments take turns, on small generated images. A turn trains an experiment twice. One run is not
interrupted. The other run is killed by SIGKILL and continued, again and again, after random times of 5 to 60
seconds, until it is finished. After each kill, the last checkpoint must be undamaged and not older than after
the previous kill. At the end, the weights, the pictures and metrics.csv (except for times) of both runs must
be bit-identical. This script is not part of the test suite.
"""

import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from absl import app, flags
from small_training import contents

from core.runs import checkpoint

MINUTES = flags.DEFINE_float("minutes", 60, "Begin no further pair of runs after this many minutes.")
COMMANDS = {
    "cityscape_road": "--size=64 --epochs=20",
    "oxford_pets_mobilenet": "--size=64 --batch_size=16 --epochs=15 --encoder_weights=none --train_encoder",
    "dubai_aerial": "--patch_size=64 --batch_size=32 --epochs=6",
    "cityscapes_labels": "--size=32 --resize=40 --batch_size=8 --epochs=6",
    "oxford_pets": "--size=32 --batch_size=8 --epochs=4",
}


def main(_):
    folder, seed = Path(tempfile.mkdtemp(prefix="soak-")), time.time_ns() % 2**32
    print(f"seed {seed}, {folder}", flush=True)
    random.seed(seed)
    started, counts, number = time.monotonic(), Counter(), 0
    while time.monotonic() - started < 60 * MINUTES.value:
        name = list(COMMANDS)[number % len(COMMANDS)]
        runs = folder / f"{number}_{name}"
        command = [
            *(sys.executable, "-m", f"experiments.{name}", *COMMANDS[name].split()),
            *(f"--seed={number}", f"--cache_dir={folder / 'cache'}", "--checkpoint_every=0.05"),
        ]
        subprocess.run([*command, f"--run_dir={runs / 'unbroken'}"], stdout=subprocess.DEVNULL, check=True)
        kills = killed_till_done([*command, f"--run_dir={runs / 'killed'}"], runs / "killed")
        whole, killed = (contents(runs / each) for each in ("unbroken", "killed"))
        differing = [part for part in whole if whole[part] != killed[part]]
        counts.update(pairs=1, kills=kills, differing=bool(differing))
        minutes = (time.monotonic() - started) / 60
        result = f"{kills} kills, differing: {', '.join(differing) or 'nothing'}"
        print(f"{minutes:5.1f} min, {name}: {result}; total {dict(counts)}", flush=True)
        if differing:
            sys.exit(f"look at {runs}")
        shutil.rmtree(runs)
        number += 1
    shutil.rmtree(folder)


def killed_till_done(command, run):
    """Repeat a training command, killed at random times, until it ends by itself; return the number of kills.

    run: the run folder. Exits if the command fails, or if the checkpoint after a kill is older than the
    checkpoint after the previous kill.
    """
    kills, reached = 0, (0, 0)
    while True:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            if process.wait(timeout=random.uniform(5, 60)) == 0:
                return kills
            sys.exit(f"{command} ended with {process.returncode}")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        if (run / "checkpoints" / "last.npz").exists():
            _, state = checkpoint.load(run / "checkpoints" / "last.npz")
            if (state["epoch"], state["step"]) < reached:
                sys.exit(f"{run} went back from {reached} to {state['epoch'], state['step']}")
            reached = state["epoch"], state["step"]


if __name__ == "__main__":
    app.run(main)
