"""Read and write run folders: flags, metrics, checkpoints, and digests of the code that trained the run."""
