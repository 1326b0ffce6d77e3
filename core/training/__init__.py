"""Training: the training loop, the training step, the optimizer, and the flags that all experiments share."""
