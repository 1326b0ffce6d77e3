"""Measure the speed of a machine, of this project's networks, and of these networks in other frameworks."""
