"""The speed of each network beside the machine's limits and the same network in other frameworks."""
