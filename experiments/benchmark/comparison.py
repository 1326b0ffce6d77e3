"""The command `python -m experiments.benchmark`: start the measurements, and print their comparison.

`experiments/benchmark/__main__.py` describes the measurements. A baseline is an implementation of the
experiment's network in another framework.
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
from core.training import checks, common_flags
from experiments import article
from experiments.benchmark import table, this_code

FOLDER = Path(__file__).parent
# Name of an implementation, or "machine" -> arguments with which a Python interpreter runs the measurement.
# `measure_in_process` appends the settings of the measurement as JSON. "ours" names this project's code.
PROGRAMS = {
    "machine": ["-m", "experiments.benchmark.machine"],
    "ours": ["-m", "experiments.benchmark.this_code"],
    "keras": ["-m", "experiments.benchmark.keras_baselines"],
    "torch": [str(FOLDER / "torch_baselines.py")],
    "torch_compile": [str(FOLDER / "torch_baselines.py")],
    "openvino": [str(FOLDER / "openvino_baselines.py")],
}
# Name of a baseline -> packages that the baseline's Python interpreter must be able to import.
PEERS = {
    "keras": [],
    "torch": ["torch"],
    "torch_compile": ["torch"],
    "openvino": ["torch", "openvino"],
}


def define_flags(values):
    """Define the flags that choose the network, the baselines and the measurement."""
    own = {"flag_values": values}
    peers = f"Frameworks to compare with, separated by commas: any of {', '.join(PEERS)}."
    torch_python = "Path of a Python interpreter that has PyTorch; by default the one that runs this command."
    openvino_python = "Path of a Python interpreter that has OpenVINO and PyTorch; by default --torch_python."
    flags.DEFINE_string("experiment", None, "Name of the experiment, such as cityscape_road.", **own)
    flags.DEFINE_enum(
        "mode",
        "train",
        this_code.MODES,
        "What to measure. train: training steps; infer: prediction; input: the input pipeline of training.",
        **own,
    )
    new = common_flags.Definer(values)
    new.integer("batch_size", 16, "Number of images per step.", 1)
    flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "Dtype of the activations.", **own)
    flags.DEFINE_enum("lowering", "auto", lowering.MODES, lowering.HELP, **own)
    flags.DEFINE_list("peers", [], peers, **own)
    flags.DEFINE_string("torch_python", sys.executable, torch_python, **own)
    flags.DEFINE_string("openvino_python", None, openvino_python, **own)
    new.number("seconds", 10, "Duration of each measurement in seconds.")
    new.integer("turns", 3, "Number of measurements of each implementation.", 1)
    flags.DEFINE_string("cache_dir", "cache", "Folder for generated images and for decoded images.", **own)
    flags.DEFINE_bool("json", False, "Print all metrics as one line of JSON instead of a table.", **own)
    flags.register_validator(
        "peers", lambda peers: set(peers) <= set(PEERS), f"must be among {', '.join(PEERS)}", **own
    )


def run(flags):
    """Measure all implementations, print the comparison, and return 0.

    Raises InputError if --experiment names no experiment, if flags contradict each other, if a measurement
    fails, or if a baseline lacks the network, uses another kind of device or has another number of
    parameters. Raises OSError if a baseline's Python interpreter cannot be started.
    """
    if not flags.experiment:
        raise InputError("--experiment: name an experiment, such as cityscape_road.")
    pythons = {"machine": sys.executable, "ours": sys.executable, **_peer_pythons(flags)}
    settings = _settings(flags)
    if flags.peers:
        from experiments.benchmark import keras_baselines  # not above, because importing Keras is slow

        if settings["network"] not in keras_baselines.NETWORKS:
            raise InputError(
                f"--peers: no baseline has the network {settings['network']}; add it to keras_baselines.py"
                " and torch_networks.py, or leave --peers out."
            )
    measurements = {name: [] for name in pythons}
    for _ in range(flags.turns):
        for name, python in pythons.items():
            measured = measure_in_process(name, settings, python)
            measurements[name].append(measured)
            if name in PEERS and measured["device"] != measurements["ours"][0]["kind"]:
                raise InputError(
                    f"--peers: {name} computes on {measured['device']}, but this code on"
                    f" {measurements['ours'][0]['device']}; use the same device, for example the CPU with"
                    " CUDA_VISIBLE_DEVICES=-1."
                )
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
    """Return the baselines to measure, a dict: name of a baseline -> path of its Python interpreter.

    --peers names the baselines. If the interpreter of a baseline cannot import the packages that PEERS lists
    for this baseline, the function leaves the baseline out and prints a warning on stderr. Raises InputError
    if a baseline does not support --mode.
    """
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
            print(
                f"warning: {pythons[name]} cannot import {packages}; continuing without {name}.",
                file=sys.stderr,
            )
    return usable


def can_import(python, packages):
    """Return whether a Python interpreter can import all packages.

    python: the path of the interpreter. packages: list of names of packages. Raises OSError if there are
    packages to import and the interpreter cannot be started.
    """
    command = [python, "-c", "; ".join(f"import {package}" for package in packages)]
    return not packages or not subprocess.run(command, capture_output=True).returncode


def _settings(flags):
    """Return the settings that every measurement receives, a dict: name -> JSON value.

    mode, batch_size, precision, seconds: the values of the flags with these names.
    module: the name of the experiment's module. flags: command-line arguments for this module.
    network: the key of the network in `keras_baselines.NETWORKS` and `torch_networks.NETWORKS`, such as
    "road_unet".
    filters: FILTERS of the network's module, or None if the module does not define FILTERS.
    channels: the number of logits per pixel.
    size: [height, width] of the images.

    This function also generates and caches the images, so that no measurement includes this work.
    """
    module = article(flags.experiment)
    passed = ("batch_size", "precision", "lowering", "cache_dir")
    arguments = [f"--{name}={flags[name].value}" for name in passed]
    # without this flag, own_images would read the classes of a run in its default run folder
    arguments.append(f"--run_dir={Path(flags.cache_dir) / 'benchmark'}")
    article_flags = cli.parse(module.define_flags, arguments)
    with contextlib.redirect_stdout(sys.stderr):
        experiment = module.experiment(article_flags)
        images, *_ = next(this_code.feed(experiment, article_flags, flags.mode))
    network = inspect.getmodule(experiment.forward)
    return {
        **{name: flags[name].value for name in ("mode", "batch_size", "precision", "seconds")},
        "module": module.__name__,
        "flags": arguments,
        "network": network.__name__.rpartition(".")[2],
        "filters": getattr(network, "FILTERS", None),
        "channels": checks.check_experiment(experiment, experiment.init_weights(seed=0)),
        "size": images.shape[1:3].as_list(),
    }


def measure_in_process(name, settings, python):
    """Measure an implementation or the machine once, in a new process; return a dict: metric -> JSON value.

    name: a key of PROGRAMS. settings: as returned by `_settings`. python: path of the Python interpreter.
    The process of an implementation reports first_step_at, the `time.time()` at the end of the first step.
    The returned metrics have first_step_seconds instead: the seconds from the start of the process to the end
    of the first step. Raises InputError if the exit code of the process is not 0.
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
