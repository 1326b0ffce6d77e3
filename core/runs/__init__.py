"""Run folders: flags, checkpoints, and digests of the code that trained the run."""
