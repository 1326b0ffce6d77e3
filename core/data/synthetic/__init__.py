"""Generators of synthetic images, one per data set."""
