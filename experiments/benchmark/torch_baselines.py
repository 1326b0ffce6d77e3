"""Measure PyTorch, eager or compiled: channels last, autocast to bfloat16, Adam.

Run this file by its path. Its Python needs PyTorch, but of this project only the modules imported here.
"""

import measurement
import torch
from torch.nn import functional
from torch_networks import NETWORKS, parameter_counts

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def measure(spec):
    """Return the metrics of repeated steps on one batch; spec.implementation: torch or torch_compile."""
    model = NETWORKS[spec.network](spec.filters, spec.channels)
    model = model.to(DEVICE, memory_format=torch.channels_last).train(spec.mode == "train")
    network = torch.compile(model) if spec.implementation == "torch_compile" else model
    images = torch.rand(spec.batch_size, 3, *spec.size, device=DEVICE)
    images = images.to(memory_format=torch.channels_last)
    masks = torch.randint(0, max(2, spec.channels), (spec.batch_size, *spec.size), device=DEVICE)
    optimizer = torch.optim.Adam(each for each in model.parameters() if each.requires_grad)
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
        "versions": {"torch": torch.__version__},
    }


def cross_entropy(logits, masks):
    """Return the mean cross-entropy over all pixels, of the sigmoid (one channel) or of the softmax."""
    if logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(logits[:, 0], masks.float())
    return functional.cross_entropy(logits, masks)


if __name__ == "__main__":
    measurement.main(measure)
