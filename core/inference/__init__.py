"""Evaluate, apply, export and compare trained runs, and draw pictures of the results."""
