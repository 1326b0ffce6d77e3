"""Code that the other packages share: command line, files, locks, devices, precision and progress."""
