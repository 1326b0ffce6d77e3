"""Modules that know neither images nor networks: command line, files, locks, devices and progress."""
