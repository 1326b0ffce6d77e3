"""The data sets, and the way from their files to batches of pixels."""
