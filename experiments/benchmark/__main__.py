"""The command `python -m experiments.benchmark`; `comparison` describes what it measures."""

from core.runtime import cli
from experiments.benchmark import comparison

if __name__ == "__main__":
    cli.main(comparison.define_flags, comparison.run)
