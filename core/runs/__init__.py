"""The run folder: its flags, its checkpoints, and the code that trained it."""
