"""Measure the speed of the networks here, of the same networks in other frameworks, and of the machine."""
