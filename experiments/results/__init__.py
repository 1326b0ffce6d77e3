"""The published results: one CSV file of per-epoch metrics for each run, and the tables made from them."""
