"""Measure the speed of prediction with OpenVINO on a CPU, for the networks of `torch_networks`.

OpenVINO converts each network from PyTorch and compiles it.

This file is run by its path, with a Python interpreter that has OpenVINO and PyTorch but may lack TensorFlow.
Therefore it imports only those modules of this project that do not need TensorFlow.
"""

import measurement
import openvino
import torch
from torch_networks import NETWORKS, parameter_counts

PRECISIONS = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}


def measure(spec):
    """Measure repeated predictions of one batch in memory; return the metrics: name -> JSON value.

    spec: settings, see `comparison._settings`. Raises ValueError if OpenVINO does not compute in
    spec.precision on this processor.
    """
    model = NETWORKS[spec.network](spec.filters, spec.channels).eval()
    images = torch.rand(spec.batch_size, 3, *spec.size)
    converted = openvino.convert_model(model, example_input=images, input=list(images.shape))
    precision = PRECISIONS[spec.precision]
    hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(converted, "CPU", hints)
    used = compiled.get_property("INFERENCE_PRECISION_HINT")
    if used != precision:
        raise ValueError(
            f"OpenVINO computes in {used.get_type_name()} on this processor, not in {spec.precision}"
        )
    request, batch = compiled.create_infer_request(), images.numpy()
    return {
        **measurement.measure_steps(
            lambda: request.infer([batch], share_inputs=True, share_outputs=True),
            spec.batch_size,
            spec.seconds,
        ),
        "parameters": parameter_counts(model),
        "device": "CPU",
        "versions": {"openvino": openvino.__version__.partition("-")[0]},
    }


if __name__ == "__main__":
    measurement.main(measure)
