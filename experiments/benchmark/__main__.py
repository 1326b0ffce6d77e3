"""Compare the speed of a network with this machine's limits and with other frameworks.

`experiments.benchmark.comparison` describes what is measured, and how to run it.
"""

from core.runtime import cli
from experiments.benchmark import comparison

if __name__ == "__main__":
    cli.main(comparison.define_flags, comparison.run)
