"""One turn of a contestant, in a process of its own: settings in, figures out, both JSON.

Imports the standard library alone: PyTorch's environment need not have TensorFlow.
"""

import json
import resource
import statistics
import sys
import time
import types

WARM_UP = 2  # steps after the first that are not measured either


def take(measure):
    """Print what measure returns for the settings in this process' only argument."""
    print(json.dumps(measure(types.SimpleNamespace(**json.loads(sys.argv[1])))))


def steps(step, batch_size, seconds):
    """Figures of step, which makes one step and waits for its result: the median counts.

    The first step, which may trace and compile, is kept apart.
    """
    step()
    first_step_at = time.time()
    for _ in range(WARM_UP):
        step()
    taken, cores = timed(step, seconds, least=5)
    return figures(batch_size, taken, cores, first_step_at)


def figures(batch_size, taken, cores, first_step_at):
    """What every contestant says of itself.

    taken: seconds of steps, of which the median counts; cores: busy with these steps
    on average; first_step_at: when the first ended, of `time.time`.
    """
    return {
        "images_per_second": batch_size / statistics.median(taken),
        "step_seconds": statistics.median(taken),
        "mean_step_seconds": statistics.mean(taken),
        "cores_busy": cores,
        "first_step_at": first_step_at,
        "peak_mib": peak_mib(),
    }


def timed(call, seconds, least):
    """(the seconds that each call took, how many cores these calls had on average).

    As many calls as begin in so many seconds, but at least `least`.
    """
    taken, begun, cpu = [], time.perf_counter(), time.process_time()
    while len(taken) < least or time.perf_counter() - begun < seconds:
        before = time.perf_counter()
        call()
        taken.append(time.perf_counter() - before)
    return taken, (time.process_time() - cpu) / sum(taken)


def peak_mib():
    """The most memory that this process has had resident, in MiB.

    Linux' ru_maxrss is no less than what the process that started this one had; VmHWM is.
    """
    try:
        with open("/proc/self/status") as status:
            (line,) = (line for line in status if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
