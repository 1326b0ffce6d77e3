"""One measurement of one implementation, in a separate process.

The process reads its settings as JSON from its only argument and prints its metrics as
JSON. This module imports only the standard library, because a baseline's Python may lack
TensorFlow.
"""

import json
import resource
import statistics
import sys
import time
import types

WARM_UP_STEPS = 2  # untimed steps after the first


def main(measure):
    """Print the metrics that measure(settings) returns for this process' settings."""
    print(json.dumps(measure(types.SimpleNamespace(**json.loads(sys.argv[1])))))


def measure_steps(step, batch_size, seconds):
    """Return the metrics of step(), a function that performs one step and waits for its result.

    The first step, which may trace and compile, is excluded from throughput.
    """
    step()
    first_step_at = time.time()
    for _ in range(WARM_UP_STEPS):
        step()
    durations, cores = time_calls(step, seconds, least=5)
    return metrics(batch_size, durations, cores, first_step_at)


def metrics(batch_size, durations, cores, first_step_at):
    """Return the metrics that every implementation reports.

    durations: seconds of each step; throughput uses their median. cores: the mean number
    of busy cores during these steps. first_step_at: the `time.time()` at which the first
    step ended.
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
    """Call until `seconds` have passed, at least `least` times; return (durations, mean busy cores).

    durations: seconds of each call.
    """
    durations, begun, cpu = [], time.perf_counter(), time.process_time()
    while len(durations) < least or time.perf_counter() - begun < seconds:
        before = time.perf_counter()
        call()
        durations.append(time.perf_counter() - before)
    return durations, (time.process_time() - cpu) / sum(durations)


def peak_mib():
    """Return the peak resident memory of this process, in MiB.

    On Linux, ru_maxrss is at least the parent process' value and can overstate; VmHWM does not.
    """
    try:
        with open("/proc/self/status") as status:
            (line,) = (line for line in status if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
