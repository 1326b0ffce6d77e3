"""The data sets, and how their files become batches of pixels."""
