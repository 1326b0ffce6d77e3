"""How fast an experiment's network runs here, beside this machine's limits and its peers.

Each contestant runs in a process of its own, in turns (A B A B); the fastest turn of
each counts. Ours is the median of steps whose results are waited for, with generated
images from the cache through the input pipeline; what happens once in an epoch is
in the mean alone. Keras is the median of the steps of fit or predict over arrays in
memory, the starts of these calls in the mean alone; PyTorch the median of steps on one
batch in memory. First steps, which trace and compile, are kept apart. Where a
contestant had fewer cores busy than another, other programs may have been in its way.

Run: python -m experiments.benchmark --experiment=cityscape_road
     python -m experiments.benchmark --experiment=dubai_aerial --mode=infer --peers=keras
"""

import contextlib
import inspect
import json
import subprocess
import sys
import time
from pathlib import Path

from absl import flags

from core.runtime import cli
from core.runtime.errors import InputError
from experiments import article
from experiments.benchmark import ours

PEERS = ("keras", "torch")
TURNS = {  # what Python runs
    "machine": ["-m", "experiments.benchmark.machine"],
    "ours": ["-m", "experiments.benchmark.ours"],
    "keras": ["-m", "experiments.benchmark.keras_baselines"],
    "torch": [str(Path(__file__).with_name("torch_baselines.py"))],
}
COLUMNS = {  # heading -> key and format
    "images/s": ("images_per_second", ".1f"),
    "step s": ("step_seconds", ".4f"),
    "mean step s": ("mean_step_seconds", ".4f"),
    "GFLOP/s": ("gflops", ".1f"),
    "of limit": ("share_of_limit", ".1%"),
    "cores busy": ("cores_busy", ".2f"),
    "peak MiB": ("peak_mib", ".0f"),
    "first step s": ("first_step_seconds", ".1f"),
}


def define_flags(values):
    """What to measure, beside whom, for how long; the rest is the article's."""
    own = {"flag_values": values}
    flags.DEFINE_string("experiment", None, "Name of an experiment, such as cityscape_road.", **own)
    flags.DEFINE_enum("mode", "train", ours.MODES, "Training, prediction, or the input of training.", **own)
    flags.DEFINE_integer("batch_size", 16, "Images in a step.", lower_bound=1, **own)
    flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "Dtype of activations.", **own)
    flags.DEFINE_list("peers", [], "Who else runs the same network: keras, torch or both.", **own)
    flags.DEFINE_string("torch_python", sys.executable, "The Python that has PyTorch.", **own)
    flags.DEFINE_float("seconds", 10, "Seconds that a turn measures.", lower_bound=0, **own)
    flags.DEFINE_integer("turns", 2, "Turns of each contestant.", lower_bound=1, **own)
    flags.DEFINE_string("cache_dir", "cache", "Folder for decoded and generated images.", **own)
    flags.DEFINE_bool("json", False, "Print one JSON line, in place of a table.", **own)
    flags.register_validator(
        "peers", lambda peers: set(peers) <= set(PEERS), f"must be among {', '.join(PEERS)}", **own
    )


def run(flags):
    """Measure and print; 0. Raises InputError for senseless flags and for a turn that fails."""
    if not flags.experiment:
        raise InputError("--experiment: name one, such as cityscape_road.")
    if flags.peers and flags.mode == "input":
        raise InputError("--peers: they have no input to measure; leave it out with --mode=input.")
    peers = dict.fromkeys(flags.peers)
    if "torch" in peers and not imports_torch(flags.torch_python):
        print(f"{flags.torch_python} cannot import torch: going on without it.", file=sys.stderr)
        del peers["torch"]
    spec = _spec(flags)
    turns = {name: [] for name in ("machine", "ours", *peers)}
    for _ in range(flags.turns):
        for name, taken in turns.items():
            taken.append(take_turn(name, spec, flags.torch_python if name == "torch" else sys.executable))
            if name in PEERS and taken[0]["parameters"] != turns["ours"][0]["parameters"]:
                raise InputError(f"--peers: {name}'s twin of {spec['network']} is another network.")
    asked = {name: flags[name].value for name in ("experiment", "mode", "precision", "batch_size")}
    figures = asked | summary(turns)
    print(json.dumps(figures) if flags.json else table(figures))
    return 0


def imports_torch(python):
    """Whether a Python, given by its path, has PyTorch."""
    return not subprocess.run([python, "-c", "import torch"], capture_output=True).returncode


def _spec(flags):
    """What every turn is told; makes the cache warm."""
    module = article(flags.experiment)
    arguments = [f"--{name}={flags[name].value}" for name in ("batch_size", "precision", "cache_dir")]
    article_flags = cli.parse(module.define_flags, arguments)
    experiment = module.experiment(article_flags)
    with contextlib.redirect_stdout(sys.stderr):
        images, *_ = next(ours.feed(experiment, article_flags, flags.mode))
    network = inspect.getmodule(experiment.forward)
    return {
        **{name: flags[name].value for name in ("mode", "batch_size", "precision", "seconds")},
        "module": module.__name__,
        "flags": arguments,
        "network": network.__name__.rpartition(".")[2],
        "filters": getattr(network, "FILTERS", None),
        "channels": 1 if len(experiment.classes) == 2 else len(experiment.classes),
        "size": images.shape[1:3].as_list(),
    }


def take_turn(name, spec, python):
    """What a contestant says at the end of a process of its own."""
    started = time.time()
    done = subprocess.run([python, *TURNS[name], json.dumps(spec)], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise InputError(
            f"a turn of {name} failed ({reason}); if it lacked memory, a smaller --batch_size takes less."
        )
    figures = json.loads(done.stdout.splitlines()[-1])
    if name != "machine":
        figures["first_step_seconds"] = figures.pop("first_step_at") - started
    return figures


def summary(turns):
    """What to print, from what each contestant said: name -> list of the figures of its turns.

    The arithmetic is that of this code: the road network does less of it than its twins.
    """
    limit = max(each["conv_gflops"] for each in turns["machine"])
    gflop = turns["ours"][0]["gflop_per_image"]

    def contestant(name):
        best = max(turns[name], key=lambda each: each["images_per_second"])
        return {
            **{key: best[key] for key, _ in COLUMNS.values() if key in best},
            "turns": [each["images_per_second"] for each in turns[name]],
        }

    figures = contestant("ours")
    peers = {name: contestant(name) for name in turns if name in PEERS}
    for peer in peers.values():
        peer["ratio"] = figures["images_per_second"] / peer["images_per_second"]
    gflops = gflop * figures["images_per_second"]
    return figures | {
        "gflop_per_image": gflop,
        "gflops": gflops,
        "share_of_limit": gflops / limit,
        "conv_gflops_limit": limit,
        "memory_gb_per_s": max(each["memory_gb_per_s"] for each in turns["machine"]),
        "device": turns["ours"][0]["device"],
        "versions": {key: value for each in turns.values() for key, value in each[0]["versions"].items()},
        "peers": peers,
    }


def table(figures):
    """The figures of `run` as lines of text."""
    lines = [
        "{experiment}, {mode}, batches of {batch_size}, {precision}, {device}".format(**figures),
        "the machine: {conv_gflops_limit:.1f} GFLOP/s in convolutions".format(**figures),
        "             {memory_gb_per_s:.1f} GB/s in memory".format(**figures),
        "the network: {gflop_per_image:.3f} GFLOP an image".format(**figures),
        f"{'':<10}" + "".join(f"{heading:>13}" for heading in COLUMNS),
    ]
    for name, each in {"this code": figures, **figures["peers"]}.items():
        cells = (format(each[key], kind) if key in each else "" for key, kind in COLUMNS.values())
        lines.append(f"{name:<10}" + "".join(f"{cell:>13}" for cell in cells))
    for name, each in figures["peers"].items():
        pairs = zip(figures["turns"], each["turns"])
        rates = ", ".join(f"{mine:.1f} against {theirs:.1f}" for mine, theirs in pairs)
        lines.append(f"{each['ratio']:.2f} times the rate of {name} (turn by turn: {rates})")
    return "\n".join(lines)
