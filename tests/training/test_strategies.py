"""Training with several replicas or processes equals one device; a run survives the loss of a worker."""

import contextlib
import dataclasses
import functools
import json
import os
import signal
import socket
import sys
import time
import types

import numpy as np
import pytest
import small_training
import tensorflow as tf
from conftest import decoded
from small_networks import small
from test_kill import FORKS, generated

from core.data import batches
from core.inference import evaluate
from core.models import labels_unet, road_unet
from core.runtime import cli, distribution, files
from core.runtime.errors import InputError
from core.training import optimizer, step
from experiments import article

NOTICED = 90  # the other workers must end within this time after one died; usually they take 15 s


@pytest.mark.parametrize("replicas, processes", [(1, 1), (2, 1), (4, 2), (3, 3)])
@pytest.mark.parametrize("count", [24, 25, 29, 35, 5])
def test_the_parts_of_all_replicas_equal_the_batches_of_one_device(tmp_path, replicas, processes, count):
    examples, size = numbered(tmp_path, count), 12
    here = replicas // processes
    streams = []  # of each replica
    for process in range(processes):
        context = tf.distribute.InputContext(processes, process, replicas)
        parts = list(batches.training(examples, size, seed=1, epoch=0, context=context))
        streams += [parts[local::here] for local in range(here)]
    whole = list(batches.training(examples, size, seed=1, epoch=0))
    assert all(len(stream) == len(whole) for stream in streams)
    for (images, masks, share), *parts in zip(whole, *streams):
        assert share == 1 and sum(float(share) for *_, share in parts) == pytest.approx(1)
        own = [part for part in parts if part[2] > 0]
        for one, of_parts in ((images, [part[0] for part in own]), (masks, [part[1] for part in own])):
            np.testing.assert_array_equal(one, np.concatenate(of_parts))
        for part, _, share in parts:
            assert float(share) == pytest.approx(len(part) / len(images) if share else 0)


def test_two_replicas_train_like_one_device(tmp_path):
    child = FORKS.Process(target=_compare_two_with_one, args=[tmp_path])
    child.start()
    assert ended([child]) == [0]


def test_moving_statistics_become_the_mean_of_the_replicas():
    child = FORKS.Process(target=_compare_statistics)
    child.start()
    assert ended([child]) == [0]


def test_each_replica_draws_its_own_dropout():
    child = FORKS.Process(target=_compare_seeds)
    child.start()
    assert ended([child]) == [0]


def test_runs_with_three_workers_or_two_replicas_train_like_one_device(shared_cache, tmp_path):
    data = generated("cityscape_road", shared_cache)
    start = functools.partial(worker, data, tmp_path)
    # the last batch has 2 examples, so the third worker gets none
    arguments = ["--batch_size=6", "--limit=20"]
    assert ended(start_all(start, 3, "three", *arguments)) == [0, 0, 0]
    children = []
    for name, strategy in (("one", "single"), ("two", "mirrored")):
        training = data, tmp_path / name, tmp_path / "cache", None, [f"--strategy={strategy}", *arguments]
        children.append(FORKS.Process(target=_train, args=training))
        children[-1].start()
    assert ended(children) == [0, 0]
    one, two, three = (
        json.loads((tmp_path / name / "summary.json").read_text())["final"]
        for name in ("one", "two", "three")
    )
    for several in (two, three):
        for name in ("train_loss", "val_loss", "val_accuracy"):
            assert several[name] == pytest.approx(one[name], rel=0.01), name


def test_a_run_continued_after_losing_a_worker_equals_an_uninterrupted_one(shared_cache, tmp_path):
    start = functools.partial(worker, generated("cityscape_road", shared_cache), tmp_path)
    assert ended(start_all(start, 2, "unbroken")) == [0, 0]
    for victim, call in ((1, 4), (0, 2)):  # dies in this step
        children = start_all(start, 2, "broken", death=(victim, ("step", call)))
        children[victim].join()
        died = time.monotonic()
        codes = ended(children)
        assert (codes[victim], codes[1 - victim]) == (-signal.SIGKILL, 1)
        assert time.monotonic() - died < NOTICED
        told = (tmp_path / f"broken.{1 - victim}").read_text()
        assert "another worker ended or cannot be reached" in told and "same command" in told
    assert ended(start_all(start, 2, "broken")) == [0, 0]
    assert small_training.contents(tmp_path / "unbroken") == small_training.contents(tmp_path / "broken")


def test_workers_with_different_flags_are_refused(shared_cache, tmp_path):
    start = functools.partial(worker, generated("cityscape_road", shared_cache), tmp_path)
    cluster = addresses(2)
    children = [start(cluster, index, "run", [f"--seed={index}"]) for index in range(2)]
    assert ended(children) == [1, 1]
    assert "the workers differ" in (tmp_path / "run.0").read_text()
    assert ended(start_all(start, 2, "odd", "--batch_size=3")) == [1, 1]
    assert "--batch_size=3: must be a multiple of the 2 replicas" in (tmp_path / "odd.1").read_text()


def worker(data, folder, cluster, index, run, arguments, death=None):
    """Start a worker of a cluster (a list of addresses); its stderr goes to the file `RUN.INDEX`."""
    config = {"cluster": {"worker": cluster}, "task": {"type": "worker", "index": index}}
    arguments = ["--strategy=multi_worker", *arguments]
    training = data, folder / run, folder / "cache", death, arguments
    child = FORKS.Process(target=_work, args=(json.dumps(config), index, training))
    child.start()
    return child


def addresses(workers):
    """Return free addresses on this machine, one per worker."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def start_all(start, workers, run, *arguments, death=(None, None)):
    """Start the workers of a cluster. death: (index of a worker, when it dies)."""
    cluster = addresses(workers)
    return [
        start(cluster, index, run, arguments, death[1] if index == death[0] else None)
        for index in range(workers)
    ]


def ended(children):
    """Wait for processes and return their exit codes."""
    for child in children:
        child.join(2 * NOTICED)
        child.kill()
    return [child.exitcode for child in children]


def _compare_two_with_one(folder):
    """Uses gradient descent, because Adam turns rounding errors of tiny gradients into full steps."""
    _split_the_cpu()
    optimizer.adam = _descend
    examples = numbered(folder, 13, size=16)
    one, two = (_trained(examples, distribution.strategy(name)) for name in ("single", "mirrored"))
    assert one["confusion"].sum() == 13 * 16 * 16
    np.testing.assert_array_equal(one["confusion"], two["confusion"])
    np.testing.assert_allclose(one["losses"], two["losses"], rtol=1e-5)
    assert one["losses"][-1] < one["losses"][0]
    for name, value in one["weights"].items():
        np.testing.assert_allclose(value, two["weights"][name], rtol=1e-4, atol=1e-6, err_msg=name)


def _trained(examples, strategy):
    """Return losses, weights and confusion matrix of three epochs of 13 examples in batches of 4."""
    experiment = dataclasses.replace(_experiment("cityscape_road"), **small(road_unet))
    with strategy.scope():
        weights = experiment.init_weights(seed=0)
        train_step = step.make_train_step(
            experiment, weights, optimizer.init_slots(weights, tf.float32), {}, tf.float32, step.Recipe(0.1)
        )

        def distributed(make, **options):
            return strategy.distribute_datasets_from_function(
                lambda context: make(examples, 4, context=context, **options)
            )

        seed = tf.constant([0, 0], tf.int64)
        losses = [
            float(train_step(*batch, seed))
            for epoch in range(3)
            for batch in distributed(batches.training, seed=0, epoch=epoch)
        ]
        means, confusion = evaluate.make_evaluate(experiment, weights, tf.float32)(
            distributed(batches.evaluation)
        )
    return {
        "losses": [*losses, means["loss"]],
        "confusion": confusion,
        "weights": {name: weight.numpy() for name, weight in weights.items()},
    }


def _compare_statistics():
    _split_the_cpu()
    images = np.random.RandomState(0).randint(0, 256, (2, 3, 16, 16, 3)).astype(np.uint8)

    def statistics(strategy, batch):
        with strategy.scope():
            experiment = dataclasses.replace(
                _experiment("cityscapes_labels"), **small(labels_unet, classes=34)
            )
            weights = experiment.init_weights(seed=0)
            train_step = step.make_train_step(
                experiment,
                weights,
                optimizer.init_slots(weights, tf.float32),
                {},
                tf.float32,
                step.Recipe(1e-3),
            )
            replicas = strategy.num_replicas_in_sync
            data = tf.data.Dataset.from_tensor_slices((batch, batch[..., 0] % 34, [1 / replicas] * replicas))
            for part in strategy.distribute_datasets_from_function(lambda context: data):
                train_step(*part, tf.constant([0, 0], tf.int64))
        return {name: weight.numpy() for name, weight in weights.items() if not weight.trainable}

    halves = [statistics(distribution.strategy("single"), half[None]) for half in images]
    both = statistics(distribution.strategy("mirrored"), images)
    assert len(both) > 4
    for name, value in both.items():
        expected = (halves[0][name] + halves[1][name]) / 2
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7, err_msg=name)


def _compare_seeds():
    """The forward pass adds its seed to the logits, so the loss is the mean of the replicas' seeds."""
    _split_the_cpu()

    def forward(weights, images, *, training, seed):
        return weights["bias"] * images[..., :1] + tf.cast(seed[1], tf.float32)

    with distribution.strategy("mirrored").scope():
        weights = {"bias": tf.Variable(0.0)}
        train_step = step.make_train_step(
            types.SimpleNamespace(forward=forward, loss=lambda logits, masks: logits[:, 0, 0, 0]),
            weights,
            optimizer.init_slots(weights, tf.float32),
            {},
            tf.float32,
            step.Recipe(1e-3),
        )
        images = np.zeros((2, 1, 4, 4, 3), np.uint8)
        halves = tf.data.Dataset.from_tensor_slices((images, images[..., 0], [0.5, 0.5]))
        data = tf.distribute.get_strategy().distribute_datasets_from_function(lambda context: halves)
        (loss,) = (float(train_step(*batch, tf.constant([0, 4], tf.int64))) for batch in data)
    assert loss > 4


def _split_the_cpu():
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])


def _descend(weight, mean, square, gradient, *, step, learning_rate):
    return weight - learning_rate * gradient, mean, square


def _experiment(name):
    script = article(name)
    return script.experiment(cli.parse(script.define_flags))


def numbered(folder, count, size=2):
    """Return examples of noise; the first value of each photo is the example's number."""
    images = np.random.RandomState(0).randint(0, 256, (count, size, size, 3)).astype(np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return decoded(folder, images, images[..., 0] // 128)


def _work(config, index, training):
    """Train as a worker. Workers other than the first must not write to the run folder."""
    os.environ["TF_CONFIG"] = config
    data, run_dir, cache_dir, death, arguments = training
    atomic = files.atomic

    def atomic_elsewhere(path):
        assert not index or run_dir not in path.parents, path
        return atomic(path)

    files.atomic = atomic_elsewhere
    with open(run_dir.with_suffix(f".{index}"), "w") as file:
        os.dup2(file.fileno(), 2)
    _train(data, run_dir, cache_dir, death, arguments)


def _train(data, run_dir, cache_dir, death, arguments):
    """Train in this process; with --strategy=mirrored, the CPU is split into two devices."""
    if "--strategy=mirrored" in arguments:
        _split_the_cpu()
    try:
        code = small_training.run("cityscape_road", run_dir, cache_dir, data, death, arguments)
    except InputError as error:
        print(error, file=sys.stderr, flush=True)
        code = 1
    sys.exit(code)
