"""Readers of the data sets, the cache of decoded images, augmentation and batching."""
