"""Training: the loop, one step, the optimizer, and the flags of every experiment."""
