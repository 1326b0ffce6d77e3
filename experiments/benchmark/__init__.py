"""Those that `experiments.benchmark` compares: each module runs in a process of its own."""
