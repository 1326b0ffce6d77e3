"""Measure the speed of this project's networks in PyTorch, eager or compiled, in training or prediction.

The optimizer is fused Adam, the tensors are channels-last, and bfloat16 uses autocast.

This file is run by its path, with a Python interpreter that has PyTorch but may lack TensorFlow. Therefore it
imports only those modules of this project that do not need TensorFlow.
"""

import measurement
import torch
import torch._inductor.config
from torch.nn import functional
from torch_networks import NETWORKS, parameter_counts

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def measure(spec):
    """Measure steps of training or prediction on one batch in memory; return the metrics: name -> JSON value.

    spec: settings, see `comparison._settings`. spec.implementation: "torch" or "torch_compile".
    """
    model = NETWORKS[spec.network](spec.filters, spec.channels)
    model = model.to(DEVICE, memory_format=torch.channels_last).train(spec.mode == "train")
    network = torch.compile(model) if spec.implementation == "torch_compile" else model
    images = torch.rand(spec.batch_size, 3, *spec.size, device=DEVICE)
    images = images.to(memory_format=torch.channels_last)
    masks = torch.randint(0, max(2, spec.channels), (spec.batch_size, *spec.size), device=DEVICE)
    torch._inductor.config.freezing = spec.mode == "infer"  # torch.compile then regards weights as constants
    optimizer = torch.optim.Adam((each for each in model.parameters() if each.requires_grad), fused=True)
    cast = torch.autocast(DEVICE, torch.bfloat16, enabled=spec.precision == "bfloat16")

    def train():
        optimizer.zero_grad()
        with cast:
            logits = network(images)
        loss = cross_entropy(logits.float(), masks)
        loss.backward()
        optimizer.step()
        return loss.item()

    def infer():
        with torch.inference_mode(), cast:
            return network(images).sum().item()

    step = train if spec.mode == "train" else infer
    return {
        **measurement.measure_steps(step, spec.batch_size, spec.seconds),
        "parameters": parameter_counts(model),
        "device": "GPU" if DEVICE == "cuda" else "CPU",
        "versions": {"torch": torch.__version__},
    }


def cross_entropy(logits, masks):
    """Return the mean cross-entropy over all pixels: binary for logits of one channel, otherwise categorical.

    logits: float32 [B, channels, H, W]. masks: class ids int64 [B, H, W].
    """
    if logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(logits[:, 0], masks.float())
    return functional.cross_entropy(logits, masks)


if __name__ == "__main__":
    measurement.main(measure)
