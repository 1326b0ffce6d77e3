"""The command `python -m experiments.benchmark`; `comparison` says what it measures."""

from core.runtime import cli
from experiments.benchmark import comparison

if __name__ == "__main__":
    cli.main(comparison.define_flags, comparison.run)
