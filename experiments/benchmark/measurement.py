"""Time the steps of an implementation, and print the metrics. Every measurement uses this module.

A measurement runs in a process of its own. It reads its settings as JSON from its only argument, and prints
its metrics as JSON. This module imports only the standard library, because the Python interpreter of a
PyTorch or OpenVINO measurement may lack TensorFlow.
"""

import json
import resource
import statistics
import sys
import time
import types

WARM_UP_STEPS = 2  # number of steps after the first step that are not timed


def main(measure):
    """Call measure(settings), and print the metrics that it returns as JSON.

    settings: a namespace whose attributes are the items of the JSON object in the process' argument.
    """
    print(json.dumps(measure(types.SimpleNamespace(**json.loads(sys.argv[1])))))


def measure_steps(step, batch_size, seconds):
    """Time the function step() for about `seconds` seconds; return the metrics, see `metrics`.

    step: runs one step of batch_size images and waits for its result. The first step, which may trace and
    compile, is not timed; the metrics contain the time at which it ended.
    """
    step()
    first_step_at = time.time()
    for _ in range(WARM_UP_STEPS):
        step()
    durations, cores = time_calls(step, seconds, least=5)
    return metrics(batch_size, durations, cores, first_step_at)


def metrics(batch_size, durations, cores, first_step_at):
    """Return the metrics that every implementation reports: name -> number.

    durations: the seconds of each timed step; images_per_second and step_seconds use their median. cores:
    the mean number of busy cores during these steps. first_step_at: the `time.time()` at which the first
    step ended. peak_mib is the peak memory of this process so far.
    """
    return {
        "images_per_second": batch_size / statistics.median(durations),
        "step_seconds": statistics.median(durations),
        "mean_step_seconds": statistics.mean(durations),
        "cores_busy": cores,
        "first_step_at": first_step_at,
        "peak_mib": peak_mib(),
    }


def time_calls(call, seconds, least):
    """Call a function until `seconds` seconds have passed, and at least `least` times.

    Returns the list of the calls' durations in seconds, and the mean number of busy cores.
    """
    durations, begun, cpu = [], time.perf_counter(), time.process_time()
    while len(durations) < least or time.perf_counter() - begun < seconds:
        before = time.perf_counter()
        call()
        durations.append(time.perf_counter() - before)
    return durations, (time.process_time() - cpu) / sum(durations)


def peak_mib():
    """Return the peak resident memory of this process, in MiB.

    On Linux it is VmHWM: ru_maxrss is at least the value of the parent process, so it may be too large.
    """
    try:
        with open("/proc/self/status") as status:
            (line,) = (line for line in status if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    except OSError:  # not Linux; macOS reports ru_maxrss in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
