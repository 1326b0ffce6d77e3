"""Benchmarks: the speed of each network, of the same network in other frameworks, and of the machine."""
