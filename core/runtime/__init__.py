"""The command line, files, locks, devices and progress; independent of images and networks."""
