"""Functions for training on one device, several devices or several machines with TensorFlow's strategies.

The functions use the current strategy, `tf.distribute.get_strategy()`. Inside `with strategy.scope()`, the
current strategy is `strategy`. Outside of all scopes, it is the default strategy, which uses one device.

With several machines, one process runs on each machine. These processes are called workers, and all of them
run the same program. One worker, the chief, writes the files of the run.
"""

import contextlib
import functools
import json
import os

import numpy as np
import tensorflow as tf

from core.runtime.errors import InputError

STRATEGIES = ("single", "mirrored", "multi_worker")


def strategy(name):
    """Return the `tf.distribute.Strategy` for a name in STRATEGIES.

    single: the current strategy, by default one device. mirrored: all GPUs of this machine, or all logical
    CPU devices if there is no GPU.
    multi_worker: the machines that the environment variable TF_CONFIG lists. The call waits until all workers
    have started. Raises InputError if TF_CONFIG is missing or wrong, or if this worker cannot start, for
    example because it cannot listen at the address that TF_CONFIG gives it.
    """
    if name == "single":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return _mirrored()
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        task, cluster = config["task"], config["cluster"]
        ports = [[int(address.rpartition(":")[2]) for address in job] for job in cluster.values()]
        if task["index"] < 0 or not all(0 < port < 2**16 for job in ports for port in job):
            raise ValueError
        if set(cluster) - {"chief", "worker"} or len(cluster.get("chief", ())) > 1:
            raise ValueError
        cluster[task["type"]][task["index"]].encode()
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise InputError(
            "--strategy=multi_worker: the environment variable TF_CONFIG must hold JSON like"
            ' {"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", "index": 0}},'
            " with the same cluster on each machine; index is the position of this machine's address, and"
            " the cluster may also have the job chief, with one address."
        ) from None
    print(f"{task['type']} {task['index']}: waiting until all workers in TF_CONFIG have started", flush=True)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise InputError(
            f"--strategy=multi_worker: cannot start at {cluster[task['type']][task['index']]}, this worker's"
            f" address in TF_CONFIG ({error.message.partition(chr(10))[0]}); check that this address belongs"
            " to this machine, that its port is free, that this machine's GPUs have free memory, and that all"
            " workers are running."
        ) from None
    except (RuntimeError, ValueError) as error:  # this process has already used TensorFlow
        raise InputError(
            f"--strategy=multi_worker: TensorFlow cannot start the workers in this process ({error}); restart"
            " Python, and begin this training before any other use of TensorFlow."
        ) from None


@functools.cache
def _mirrored():
    """Return the `MirroredStrategy` of this process.

    All calls return the same object. If a process created two `MirroredStrategy` objects, TensorFlow would
    mix up their collective operations, and training would fail with "Shape mismatch in the collective
    instance".
    """
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy(devices)


def workers():
    """Return the number of workers of the current strategy: 1, except with --strategy=multi_worker."""
    return getattr(tf.distribute.get_strategy().extended, "_num_workers", 1)


def is_chief():
    """True if this process is the chief, the worker that writes the run's files.

    The result is always True if there is a single worker.
    """
    resolver = tf.distribute.get_strategy().cluster_resolver
    return (
        not resolver
        or resolver.task_type == "chief"
        or (resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs)
    )


def first(results):
    """Return the values of the first replica of this process.

    results: the return value of `strategy.run`: a value per replica, or a dict or tuple of such values. The
    result has the structure of `results`. The values of the other replicas are dropped, so the caller must
    either ensure that the values are equal on all replicas, or need only the values of the first replica.
    """
    local = tf.distribute.get_strategy().experimental_local_results
    return tf.nest.map_structure(lambda result: local(result)[0], results)


def gathered(numbers):
    """Exchange integers between the workers; return the integers of all workers, int64 [workers, n].

    numbers: the list of n integers of this worker. All workers must call this function, with lists of the
    same length. The call returns when all workers have called the function.
    """
    if workers() == 1:
        return np.array([numbers])
    found = _gather(tf.constant(numbers, tf.int64)).numpy()
    # The rows of all replicas of a worker are equal. Only the first row of each worker is kept.
    return found[:: len(found) // workers()]


@tf.function(autograph=False, reduce_retracing=True)
def _gather(numbers):
    """Return the numbers of all replicas of all workers, int64 [replicas, n]. numbers: int64 [n]."""

    def each():
        """Return the numbers of all replicas; each replica runs this function."""
        return tf.distribute.get_replica_context().all_gather(numbers[None], axis=0)

    return first(tf.distribute.get_strategy().run(each))


def check_alike(numbers):
    """Raise InputError if the workers call this function with different lists of integers.

    numbers: the list of this worker. The call returns when all workers have called the function.
    """
    if (gathered(numbers) != numbers).any():
        raise InputError(
            "the workers differ: give all workers the same command, data, files of weights and code, and one"
            " --run_dir that all of them can access."
        )


@contextlib.contextmanager
def lost_workers_named():
    """Context manager that raises an InputError if another worker ends or cannot be reached.

    In this case TensorFlow raises an exception inside the `with` block, which is converted to the InputError.
    If there is a single worker, such an exception has another cause and is not converted.
    """
    try:
        yield
    except (
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.UnavailableError,
    ):
        if workers() == 1:
            raise
        raise InputError(
            "another worker ended or cannot be reached; read the last message of that worker, then give all"
            " workers the same command again: the run continues from its last checkpoint."
        ) from None
