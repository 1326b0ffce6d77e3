"""The networks, one file each: their weights, their forward pass."""
