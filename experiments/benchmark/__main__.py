"""Compare the speed of an experiment's network with this machine's limits and with other frameworks.

Run: python -m experiments.benchmark --experiment=cityscape_road
     python -m experiments.benchmark --experiment=dubai_aerial --mode=infer --peers=keras
     python -m experiments.benchmark --experiment=dubai_aerial --peers=torch,torch_compile --torch_python=PATH

Each measurement of an implementation has a process of its own. The implementations take turns (A B A B), and
the fastest measurement of each implementation is shown. The throughput, "images/s", is computed from the
median duration of a step. A step lasts until its result is available in Python. "first step s" is the time
from the start of the process to the end of the first step, which traces and compiles; the other times do not
include it. "of limit" compares GFLOP/s with the rate that this machine reaches in single 3x3 convolutions.

this code             The input pipeline reads generated images from the cache. Prediction ends with the class
                      ids. Work at the beginning of an epoch delays only the first step of the epoch, so it
                      appears in "mean step s", but not in the median.
keras                 `fit` or `predict` runs on arrays in memory. The start-up work of each call appears only
                      in "mean step s".
torch, torch_compile  PyTorch, eager or compiled by `torch.compile`, repeats its steps on one batch in memory.
                      Prediction ends with the logits. The first step of torch_compile takes minutes unless
                      its compilation cache on disk contains the network.
openvino              OpenVINO predicts one batch in memory repeatedly, up to the logits. It cannot train.

If an implementation has fewer "cores busy" than another one, other programs may have slowed it down.
"""

from core.runtime import cli
from experiments.benchmark import comparison

if __name__ == "__main__":
    cli.main(comparison.define_flags, comparison.run)
