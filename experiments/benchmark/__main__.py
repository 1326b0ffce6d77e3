"""Compare the speed of an experiment's network with this machine's limits and with other frameworks.

Run: python -m experiments.benchmark --experiment=cityscape_road
     python -m experiments.benchmark --experiment=dubai_aerial --mode=infer --peers=keras
     python -m experiments.benchmark --experiment=dubai_aerial --peers=torch,torch_compile --torch_python=PATH

An implementation is the experiment's network in this project's code or in another framework. Each measurement
of an implementation runs in a new process. The implementations take turns (A B A B A B), and the table shows
the fastest measurement of each implementation. Below the table, a line for each other implementation shows a
median over the turns: the throughput of this code divided by the throughput of the other implementation in
the same turn.

A step lasts until its result is available in Python. The columns of the table are:

images/s      batch size divided by "step s"
step s        median duration of a step; a step processes one batch
mean step s   mean duration of a step
GFLOP/s       10^9 floating-point operations per second, counted in the graph after lowering; shown for this
              project's code only; 0 with --mode=input
of limit      "GFLOP/s" divided by the highest GFLOP/s of three 3x3 convolutions, measured on this machine
cores busy    mean number of processor cores that the process keeps busy. If an implementation has a smaller
              number than the rest, unrelated programs may have slowed down the measurement
peak MiB      peak main memory of the process; GPU memory is not included
first step s  time from the start of the process to the end of its first step, which includes tracing and
              compilation. "step s" and "mean step s" do not include this step

The implementations are:

this code             The input pipeline reads generated images from the cache. A step of prediction ends with
                      the class ids. Work at the beginning of an epoch delays the first step of the epoch.
                      This delay appears in "mean step s", but not in "step s".
keras                 `fit` or `predict` runs, without XLA, on arrays of eight batches in memory. In bfloat16,
                      Keras computes batch normalisation in float32. The start-up work of each call appears in
                      "mean step s", but not in "step s".
torch, torch_compile  PyTorch, eager or compiled by `torch.compile`, repeats its steps on one batch in memory,
                      with fused Adam. For prediction, `torch.compile` regards the weights as constants.
                      A step of prediction ends with the sum of the logits. The first step of torch_compile
                      takes minutes, unless PyTorch's compilation cache on disk contains the network.
openvino              OpenVINO repeats the prediction of one batch in memory. A step ends with the logits.
                      OpenVINO cannot train.
"""

from core.runtime import cli
from experiments.benchmark import comparison

if __name__ == "__main__":
    cli.main(comparison.define_flags, comparison.run)
