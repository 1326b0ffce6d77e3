"""Export a trained run as a SavedModel, which can be loaded without this project.

Run: python -m experiments.export --run_dir=runs/cityscape_road --output_dir=exported
"""

from pathlib import Path

from absl import flags, logging

from core.inference import export, restore
from core.runtime import cli
from core.runtime.errors import InputError
from experiments import article


def define_flags(values):
    """Define the flags that choose the weights, the output folder, the scaling of images and the formats."""
    restore.define_flags(values)
    own = {"flag_values": values}
    output_dir = "Folder to create; it must not exist. It gets saved_model/ and model.json."
    flags.DEFINE_string("output_dir", None, output_dir, **own)
    scaling = (
        "train: the model scales images to the training size, and its logits back to the images' size,"
        " as predict does. none: the model processes images at their own size. Networks trained on patches"
        " are always exported without scaling."
    )
    flags.DEFINE_enum("scaling", "train", export.SCALINGS, scaling, **own)
    tflite = "Also write model.tflite, the model for TensorFlow Lite. Both models then compute in float32."
    flags.DEFINE_bool("tflite", False, tflite, **own)


def run(flags):
    """Export the network of a trained run; return 0.

    Raises InputError if --output_dir is missing, and if `restore.restore` or `export.save` does.
    """
    if not flags.output_dir:
        raise InputError("--output_dir: name the folder to create.")
    output_dir = Path(flags.output_dir)
    logging.set_verbosity(logging.WARNING)  # hides TensorFlow's messages about saving
    export.save(restore.restore(flags, article), output_dir, scale=flags.scaling, tflite=flags.tflite)
    print(f"{output_dir}: {', '.join(sorted(path.name for path in output_dir.iterdir()))}")
    return 0


if __name__ == "__main__":
    cli.main(define_flags, run)
