"""Compare the speed of an experiment's network with this machine's limits and with other frameworks.

Each implementation is measured in a process of its own. The processes take turns (A B A B),
and the fastest measurement of each implementation counts. Throughput is computed from the median
duration of steps whose results are waited for. The first step, which traces and compiles, is
reported separately.

- This code reads generated images from the cache through its input pipeline. Work done once
  per epoch affects only the mean step time. Prediction includes computing the class ids.
- Keras runs `fit` or `predict` over arrays in memory. The start-up work of each call affects
  only the mean step time.
- PyTorch, eager or compiled by `torch.compile`, and OpenVINO run on one batch in memory.
  Prediction ends with the logits. OpenVINO only predicts. The first step of torch.compile
  takes minutes unless its compilation cache on disk already contains the network.

An implementation with fewer busy cores than another one may have been slowed down by other
programs.

Run: python -m experiments.benchmark --experiment=cityscape_road
     python -m experiments.benchmark --experiment=dubai_aerial --mode=infer --peers=keras
     python -m experiments.benchmark --experiment=dubai_aerial --peers=torch,torch_compile \
         --torch_python=/path/to/venv/bin/python
"""

import contextlib
import inspect
import json
import subprocess
import sys
import time
from pathlib import Path

from absl import flags

from core import lowering
from core.runtime import cli
from core.runtime.errors import InputError
from experiments import article
from experiments.benchmark import table, this_code

FOLDER = Path(__file__).parent
PROGRAMS = {  # implementation -> arguments for Python that start its measurement
    "machine": ["-m", "experiments.benchmark.machine"],
    "ours": ["-m", "experiments.benchmark.this_code"],
    "keras": ["-m", "experiments.benchmark.keras_baselines"],
    "torch": [str(FOLDER / "torch_baselines.py")],
    "torch_compile": [str(FOLDER / "torch_baselines.py")],
    "openvino": [str(FOLDER / "openvino_baselines.py")],
}
PEERS = {  # baseline -> packages, in addition to NumPy, that its Python must have
    "keras": [],
    "torch": ["torch"],
    "torch_compile": ["torch"],
    "openvino": ["torch", "openvino"],
}


def define_flags(values):
    """Define the flags of the benchmark."""
    own = {"flag_values": values}
    peers = f"Baselines that run the same network: any of {', '.join(PEERS)}, separated by commas."
    rewrites = "Exact rewrites of this project's convolutions on CPUs: auto, or off."
    torch_python = "The Python interpreter that has PyTorch."
    openvino_python = "The Python interpreter that has OpenVINO and PyTorch; default: --torch_python."
    flags.DEFINE_string("experiment", None, "Name of an experiment, such as cityscape_road.", **own)
    flags.DEFINE_enum(
        "mode",
        "train",
        this_code.MODES,
        "What to measure: training, prediction, or only the training input pipeline.",
        **own,
    )
    flags.DEFINE_integer("batch_size", 16, "Images per step.", lower_bound=1, **own)
    flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "Dtype of activations.", **own)
    flags.DEFINE_enum("lowering", "auto", lowering.MODES, rewrites, **own)
    flags.DEFINE_list("peers", [], peers, **own)
    flags.DEFINE_string("torch_python", sys.executable, torch_python, **own)
    flags.DEFINE_string("openvino_python", None, openvino_python, **own)
    flags.DEFINE_float("seconds", 10, "Duration of a measurement in seconds.", lower_bound=0, **own)
    flags.DEFINE_integer("turns", 2, "Number of measurements of each implementation.", lower_bound=1, **own)
    flags.DEFINE_string("cache_dir", "cache", "Folder for decoded and generated images.", **own)
    flags.DEFINE_bool("json", False, "Print one JSON line instead of a table.", **own)
    flags.register_validator(
        "peers", lambda peers: set(peers) <= set(PEERS), f"must be among {', '.join(PEERS)}", **own
    )


def run(flags):
    """Measure and print the comparison; return 0.

    Raises InputError if flags contradict each other or a measurement fails.
    """
    if not flags.experiment:
        raise InputError("--experiment: name one, such as cityscape_road.")
    pythons = {"machine": sys.executable, "ours": sys.executable, **_peer_pythons(flags)}
    settings = _settings(flags)
    measurements = {name: [] for name in pythons}
    for _ in range(flags.turns):
        for name, python in pythons.items():
            measured = measure_in_process(name, settings, python)
            measurements[name].append(measured)
            if name in PEERS and measured["parameters"] != measurements["ours"][0]["parameters"]:
                raise InputError(
                    f"--peers: {name} has a different number of parameters for {settings['network']}, so"
                    " its network differs; correct the baseline, or leave it out."
                )
    asked = {
        name: flags[name].value for name in ("experiment", "mode", "precision", "batch_size", "lowering")
    }
    metrics = asked | table.summarise(measurements)
    print(json.dumps(metrics) if flags.json else table.render(metrics))
    return 0


def _peer_pythons(flags):
    """Return baseline -> Python interpreter, for the baselines of --peers whose packages are installed."""
    if flags.peers and flags.mode == "input":
        raise InputError("--peers: baselines have no input pipeline; leave --peers out with --mode=input.")
    if "openvino" in flags.peers and flags.mode == "train":
        raise InputError("--peers: openvino only predicts; leave it out, or use --mode=infer.")
    pythons = {
        "keras": sys.executable,
        "torch": flags.torch_python,
        "torch_compile": flags.torch_python,
        "openvino": flags.openvino_python or flags.torch_python,
    }
    usable = {}
    for name in dict.fromkeys(flags.peers):
        if can_import(pythons[name], PEERS[name]):
            usable[name] = pythons[name]
        else:
            packages = " and ".join(PEERS[name])
            print(f"{pythons[name]} cannot import {packages}: continuing without {name}.", file=sys.stderr)
    return usable


def can_import(python, packages):
    """True if a Python interpreter, given by its path, can import all packages."""
    command = [python, "-c", "; ".join(f"import {package}" for package in packages)]
    return not packages or not subprocess.run(command, capture_output=True).returncode


def _settings(flags):
    """Return the settings of all measurements, as JSON values. Fills the cache of images."""
    module = article(flags.experiment)
    passed = ("batch_size", "precision", "lowering", "cache_dir")
    arguments = [f"--{name}={flags[name].value}" for name in passed]
    article_flags = cli.parse(module.define_flags, arguments)
    experiment = module.experiment(article_flags)
    with contextlib.redirect_stdout(sys.stderr):
        images, *_ = next(this_code.feed(experiment, article_flags, flags.mode))
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


def measure_in_process(name, settings, python):
    """Return the metrics of one measurement of an implementation, made in a new process.

    Raises InputError if the process fails.
    """
    started = time.time()
    command = [python, *PROGRAMS[name], json.dumps(settings | {"implementation": name})]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise InputError(
            f"a measurement of {name} failed ({reason}); if it ran out of memory, use a smaller --batch_size."
        )
    metrics = json.loads(done.stdout.splitlines()[-1])
    if name != "machine":
        metrics["first_step_seconds"] = metrics.pop("first_step_at") - started
    return metrics
