"""The networks, one file each: initial weights and forward pass."""
