"""The networks: each file defines the initial variables and the forward pass of one network."""
