"""Read data sets, cache the decoded photos and masks, and make batches for training and evaluation."""
