"""Use of trained runs: evaluation, prediction, export, and the pictures they draw."""
