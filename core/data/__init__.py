"""Read data sets, cache the decoded images, and make augmented batches of them."""
