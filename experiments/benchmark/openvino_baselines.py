"""Measure OpenVINO on CPUs: the PyTorch networks, converted and compiled for prediction.

Run this file by its path. Its Python needs OpenVINO and PyTorch, but of this project only the
modules imported here.
"""

import measurement
import openvino
import torch
from torch_networks import NETWORKS, parameter_counts

PRECISIONS = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}


def measure(spec):
    """Return the metrics of synchronous predictions of one batch in memory.

    Raises ValueError if OpenVINO computes in another precision on this processor.
    """
    model = NETWORKS[spec.network](spec.filters, spec.channels).eval()
    images = torch.rand(spec.batch_size, 3, *spec.size)
    converted = openvino.convert_model(model, example_input=images, input=list(images.shape))
    precision = PRECISIONS[spec.precision]
    hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(converted, "CPU", hints)
    used = compiled.get_property("INFERENCE_PRECISION_HINT")
    if used != precision:
        raise ValueError(f"OpenVINO computes in {used.get_type_name()} here, not in {spec.precision}")
    request, batch = compiled.create_infer_request(), images.numpy()
    return {
        **measurement.measure_steps(
            lambda: request.infer([batch], share_inputs=True, share_outputs=True),
            spec.batch_size,
            spec.seconds,
        ),
        "parameters": parameter_counts(model),
        "versions": {"openvino": openvino.__version__.partition("-")[0]},
    }


if __name__ == "__main__":
    measurement.main(measure)
