"""The command line, files, locks, devices and progress: nothing here knows about images."""
