"""Several replicas or processes train like one device; a run can be continued after losing a worker."""

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
from conftest import decoded, refused, small_road, train_road
from small_networks import small
from test_kill import FORKS

from core.data import batches
from core.inference import evaluate
from core.models import labels_unet
from core.runtime import cli, distribution, files
from core.runtime.errors import InputError
from core.training import optimizer, step
from experiments import cityscapes_labels

NOTICED = 90  # seconds within which the other workers must end after one has died; they usually take 15


@pytest.mark.parametrize("replicas, processes", [(2, 1), (4, 2), (3, 3)])
@pytest.mark.parametrize("count", [24, 25, 29, 5])
def test_the_parts_of_all_replicas_equal_the_batches_of_one_device(tmp_path, replicas, processes, count):
    examples, size = numbered(tmp_path, count), 12
    here = replicas // processes
    streams = []  # the batches of each replica
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


def test_two_replicas_of_a_process_train_like_one_device(pairs, tmp_path):
    """The checks run in a new process, because a CPU can be split only before TensorFlow has used it."""
    child = FORKS.Process(target=_check_two_replicas, args=[pairs, tmp_path])
    child.start()
    assert ended([child]) == [0]


def test_two_workers_train_like_one_device_and_a_run_is_continued_after_losing_a_worker(pairs, tmp_path):
    start = functools.partial(worker, pairs, tmp_path)
    clusters = np.reshape(addresses(8), (4, 2)).tolist()  # drawn together, so that no two are equal
    unbroken = start_all(start, clusters.pop(), "unbroken")
    for victim, call in ((1, 4), (0, 2)):  # this worker dies in this call of the step
        children = start_all(start, clusters.pop(), "broken", death=(victim, ("step", call)))
        children[victim].join()
        died = time.monotonic()
        codes = ended(children)
        assert (codes[victim], codes[1 - victim]) == (-signal.SIGKILL, 1)
        assert time.monotonic() - died < NOTICED
        told = (tmp_path / f"broken.{1 - victim}").read_text()
        assert "another worker ended or cannot be reached" in told and "same command" in told
    again = start_all(start, clusters.pop(), "broken")
    # The last batch has one example, so the second worker gets none.
    train_road(pairs, tmp_path / "one", "--batch_size=2", "--limit=5")
    assert ended([*unbroken, *again]) == [0, 0, 0, 0]
    assert small_training.contents(tmp_path / "unbroken") == small_training.contents(tmp_path / "broken")
    same_results(tmp_path / "unbroken", tmp_path / "one")


def test_exactly_one_worker_is_the_chief(monkeypatch):
    workers = {"worker": ["a:1", "b:1"]}
    for jobs in (workers, {"chief": ["c:1"], **workers}):
        found = []
        for kind, index in [(job, index) for job in jobs for index in range(len(jobs[job]))]:
            resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
                tf.train.ClusterSpec(jobs), task_type=kind, task_id=index
            )
            strategy = types.SimpleNamespace(cluster_resolver=resolver)
            monkeypatch.setattr(tf.distribute, "get_strategy", lambda strategy=strategy: strategy)
            found += [(kind, index)] if distribution.is_chief() else []
        assert found == [("chief" if "chief" in jobs else "worker", 0)]


def test_workers_with_different_flags_are_refused(pairs, tmp_path):
    cluster = addresses(2)
    children = [worker(pairs, tmp_path, cluster, index, "run", [f"--seed={index}"]) for index in range(2)]
    assert ended(children) == [1, 1]
    messages = [(tmp_path / f"run.{index}").read_text() for index in range(2)]
    # A worker that ends first may end the exchange before the other worker has compared the flags.
    assert any("the workers differ" in message for message in messages), messages


def worker(data, folder, cluster, index, run, arguments, death=None):
    """Start worker number `index` of a cluster, which trains in folder / run; return its process.

    cluster: the list of all workers' addresses. The worker's stderr goes to the file folder / RUN.INDEX.
    """
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


def start_all(start, cluster, run, *arguments, death=(None, None)):
    """Start the workers of a cluster; return their processes.

    start: a function that starts a worker. cluster: the list of the workers' addresses. death: (index of the
    worker that dies, (victim, call)), where (victim, call) is the argument `death` of `small_training.run`.
    """
    return [
        start(cluster, index, run, arguments, death[1] if index == death[0] else None)
        for index in range(len(cluster))
    ]


def ended(children):
    """Wait up to 2 * NOTICED seconds for each process, then kill the process; return all exit codes."""
    for child in children:
        child.join(2 * NOTICED)
        child.kill()
    return [child.exitcode for child in children]


def same_results(run, expected):
    """Check that two runs have the same final losses and accuracy, up to 1 %."""
    found, wanted = (json.loads((folder / "summary.json").read_text())["final"] for folder in (run, expected))
    for name in ("train_loss", "val_loss", "val_accuracy"):
        assert found[name] == pytest.approx(wanted[name], rel=0.01), name


def _check_two_replicas(pairs, folder):
    """Run each check of mirrored training in this process, whose CPU is split into two devices."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
    _check_that_an_odd_batch_size_is_refused(pairs, folder)
    _check_that_a_mirrored_run_equals_a_plain_one(pairs, folder)
    _check_that_each_replica_draws_its_own_dropout()
    _check_that_moving_statistics_become_the_mean_of_the_replicas()
    _check_that_steps_and_evaluation_equal_one_device(folder)


def _check_that_an_odd_batch_size_is_refused(pairs, folder):
    with refused("--batch_size=3: must be a multiple of the 2 replicas"):
        train_road(pairs, folder / "odd", "--strategy=mirrored", "--batch_size=3")


def _check_that_a_mirrored_run_equals_a_plain_one(pairs, folder):
    for strategy in ("single", "mirrored"):  # the batches have 4 and 2 images
        assert train_road(pairs, folder / strategy, f"--strategy={strategy}", "--epochs=2") == 0
    same_results(folder / "mirrored", folder / "single")


def _check_that_steps_and_evaluation_equal_one_device(folder):
    """The check uses gradient descent: Adam turns rounding errors of tiny gradients into full steps."""
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
    """Train for three epochs in batches of 4, and evaluate; return losses, confusion matrix and weights."""
    experiment = small_road()
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
        means, confusion, _ = evaluate.make_evaluate(experiment, weights, tf.float32)(
            distributed(batches.evaluation)
        )
    return {
        "losses": [*losses, means["loss"]],
        "confusion": confusion,
        "weights": {name: weight.numpy() for name, weight in weights.items()},
    }


def _check_that_moving_statistics_become_the_mean_of_the_replicas():
    images = np.random.RandomState(0).randint(0, 256, (2, 3, 16, 16, 3)).astype(np.uint8)

    def statistics(strategy, batch):
        with strategy.scope():
            labels = cityscapes_labels.experiment(cli.parse(cityscapes_labels.define_flags))
            experiment = dataclasses.replace(labels, **small(labels_unet, classes=34))
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


def _check_that_each_replica_draws_its_own_dropout():
    """The forward pass adds its seed to the logits, so the loss is the mean of the replicas' seeds."""

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
    assert loss == pytest.approx(2**39 + 4)  # the seeds of the two replicas are 4 and 2**40 + 4


def _descend(weight, mean, square, gradient, *, step, learning_rate):
    return weight - learning_rate * gradient, mean, square


def numbered(folder, count, size=2):
    """Return `count` examples with photos of noise. The first value of photo i is i."""
    images = np.random.RandomState(0).randint(0, 256, (count, size, size, 3)).astype(np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return decoded(folder, images, images[..., 0] // 128)


def _work(config, index, training):
    """Train as a worker. Fails if a worker other than the first writes a file to the run folder."""
    os.environ["TF_CONFIG"] = config
    data, run_dir, cache_dir, death, arguments = training
    atomic = files.atomic

    def atomic_elsewhere(path):
        assert not index or run_dir not in path.parents, path
        return atomic(path)

    files.atomic = atomic_elsewhere
    with open(run_dir.with_suffix(f".{index}"), "w") as file:
        os.dup2(file.fileno(), 2)
    try:
        code = small_training.run("cityscape_road", run_dir, cache_dir, data, death, arguments)
    except InputError as error:
        print(error, file=sys.stderr, flush=True)
        code = 1
    sys.exit(code)
