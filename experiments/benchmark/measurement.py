"""Time the steps of an implementation, and print the metrics. Every measurement uses this module.

A measurement runs in a process of its own. The process reads the settings as JSON from its only command-line
argument, and prints the metrics as JSON. This module imports only the standard library, because the Python
interpreter of a PyTorch or OpenVINO measurement may lack TensorFlow.
"""

import contextlib
import json
import resource
import statistics
import sys
import time
import types

WARM_UP_STEPS = 2  # number of steps after the first step that are not timed


def main(measure):
    """Call measure(settings), and print the returned metrics as JSON.

    settings: a namespace whose attributes are the items of the JSON object in the command-line argument.
    """
    print(json.dumps(measure(types.SimpleNamespace(**json.loads(sys.argv[1])))))


def measure_steps(step, batch_size, seconds):
    """Time calls of step() for about `seconds` seconds, at least 5 calls; return the metrics.

    step: a function that runs one step of batch_size images and waits for the result of the step. The first
    step may trace and compile. The first step and WARM_UP_STEPS more steps run before the timed steps. The
    returned metrics are the dict that the function `metrics` of this module returns.
    """
    step()
    first_step_at = time.time()
    for _ in range(WARM_UP_STEPS):
        step()
    durations, cores = time_calls(step, seconds, least=5)
    return metrics(batch_size, durations, cores, first_step_at)


def metrics(batch_size, durations, cores, first_step_at):
    """Return the metrics that every implementation reports, a dict: name -> number.

    durations: the duration of each timed step, in seconds. step_seconds and images_per_second are computed
    from the median of the durations, and mean_step_seconds is their mean.
    cores: the mean number of busy cores during the timed steps. first_step_at: the `time.time()` at which the
    first step ended. The dict also has peak_mib, the peak memory of this process so far in MiB.
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
    """Call call() repeatedly; return (durations, cores).

    The calls end when at least `seconds` seconds have passed and at least `least` calls were made. durations:
    list of the duration of each call, in seconds. cores: the mean number of busy cores during the calls.
    """
    durations, begun, cpu = [], time.perf_counter(), time.process_time()
    while len(durations) < least or time.perf_counter() - begun < seconds:
        before = time.perf_counter()
        call()
        durations.append(time.perf_counter() - before)
    return durations, (time.process_time() - cpu) / sum(durations)


def peak_mib():
    """Return the peak resident memory of this process, in MiB.

    On Linux, the number is VmHWM from /proc/self/status, if the kernel gives it. Otherwise, the number is
    ru_maxrss. On Linux, ru_maxrss may be too large, because it may be the peak memory of the parent process.
    """
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS, otherwise in KiB
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
