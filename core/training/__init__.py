"""Training: the loop, the training step, the optimizer, and the flags shared by all experiments."""
