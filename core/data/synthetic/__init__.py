"""Generators of images in the layout of each data set."""
