"""A trained run as a SavedModel to deploy: loads without this project.

Run: python -m experiments.export --run_dir=runs/cityscape_road --output_dir=exported
"""

from pathlib import Path

from absl import flags, logging

from core.inference import export, restore
from core.runtime import cli
from core.runtime.errors import InputError
from experiments import article


def define_flags(values):
    """Which weights, where to."""
    restore.define_flags(values)
    flags.DEFINE_string(
        "output_dir", None, "Folder to make: saved_model/ and model.json.", flag_values=values
    )
    flags.DEFINE_bool("tflite", False, "Write model.tflite too.", flag_values=values)


def run(flags):
    """Export; 0. Raises InputError for no --output_dir, or one that holds something."""
    if not flags.output_dir:
        raise InputError("--output_dir: name the folder to make.")
    logging.set_verbosity(logging.WARNING)  # TensorFlow's remarks on saving
    export.save(restore.restore(flags, article), Path(flags.output_dir), tflite=flags.tflite)
    print(f"{flags.output_dir}: {', '.join(sorted(path.name for path in Path(flags.output_dir).iterdir()))}")
    return 0


if __name__ == "__main__":
    cli.main(define_flags, run)
