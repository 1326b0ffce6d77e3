"""Format the output of the benchmark: the fastest measurement of each implementation, and speed ratios."""

import statistics

from core import lowering

COLUMNS = {  # heading of a column -> (name of the metric, format of its value)
    "images/s": ("images_per_second", ".1f"),
    "step s": ("step_seconds", ".4f"),
    "mean step s": ("mean_step_seconds", ".4f"),
    "GFLOP/s": ("gflops", ".1f"),
    "of limit": ("share_of_limit", ".1%"),
    "cores busy": ("cores_busy", ".2f"),
    "peak MiB": ("peak_mib", ".0f"),
    "first step s": ("first_step_seconds", ".1f"),
}


def summarise(measurements):
    """Combine all measurements into the metrics of a comparison; return a dict, name -> JSON value.

    measurements: a dict. Its keys are "machine", "ours" (this project's code) and the names of the baselines.
    A value is a list with one dict of metrics for each measurement of this key.

    The result holds the metrics of this project's code. The item "peers" is a dict: name of a baseline ->
    metrics of the baseline. A baseline's metric "ratio" is the median, over the turns, of the throughput of
    this project's code divided by the throughput of the baseline in the same turn. The item "gflop_per_image"
    is counted in this project's graph. If a rule of `core.lowering` reduces the GFLOP of this graph, the
    baselines compute more GFLOP per image.
    """
    machine, ours = measurements["machine"], measurements["ours"]
    limit = max(each["conv_gflops"] for each in machine)
    gflop = ours[0]["gflop_per_image"]
    metrics = _fastest(ours)
    peers = {name: _fastest(each) for name, each in measurements.items() if name not in ("machine", "ours")}
    for peer in peers.values():
        pairs = zip(metrics["turns"], peer["turns"])
        peer["ratio"] = statistics.median(rate / peer_rate for rate, peer_rate in pairs)
    gflops = gflop * metrics["images_per_second"]
    versions = [each[0]["versions"] for each in measurements.values()]
    return metrics | {
        "rules": ours[0]["rules"],
        "gflop_per_image": gflop,
        "gflops": gflops,
        "share_of_limit": gflops / limit,
        "conv_gflops_limit": limit,
        "memory_gb_per_s": max(each["memory_gb_per_s"] for each in machine),
        "device": ours[0]["device"],
        "versions": {package: version for each in versions for package, version in each.items()},
        "peers": peers,
    }


def _fastest(measurements):
    """Return the metrics of an implementation's fastest measurement: name -> value.

    measurements: a list of dicts, the metrics of each measurement of the implementation. The result has
    the measured metrics that `COLUMNS` names, and "turns", a list of the images per second in each
    measurement.
    """
    fastest = max(measurements, key=lambda each: each["images_per_second"])
    return {
        **{metric: fastest[metric] for metric, _ in COLUMNS.values() if metric in fastest},
        "turns": [each["images_per_second"] for each in measurements],
    }


def render(metrics):
    """Format the metrics of a comparison as a text of several lines.

    metrics: the dict that `summarise` returns, together with the values of the flags experiment, mode,
    batch_size and precision.
    """
    lines = [
        "{experiment}, {mode}, batches of {batch_size}, {precision}, {device}".format(**metrics),
        "the machine: {conv_gflops_limit:.1f} GFLOP/s in convolutions".format(**metrics),
        "             {memory_gb_per_s:.1f} GB/s in memory".format(**metrics),
        "a step:      {gflop_per_image:.3f} GFLOP per image, counted after lowering".format(**metrics),
        f"lowering: {lowering.described(metrics['rules'])}",
        f"{'':<14}" + "".join(f"{heading:>13}" for heading in COLUMNS),
    ]
    for name, each in {"this code": metrics, **metrics["peers"]}.items():
        cells = (format(each[metric], kind) if metric in each else "" for metric, kind in COLUMNS.values())
        lines.append(f"{name:<14}" + "".join(f"{cell:>13}" for cell in cells))
    for name, peer in metrics["peers"].items():
        pairs = zip(metrics["turns"], peer["turns"])
        rates = ", ".join(f"{ours:.1f} against {theirs:.1f}" for ours, theirs in pairs)
        ratio = f"this code / {name}: {peer['ratio']:.2f}, the median over the turns"
        lines.append(f"{ratio} (images/s in each turn: {rates})")
    return "\n".join(lines)
