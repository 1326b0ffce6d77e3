"""The published results: a CSV file of per-epoch metrics for each run, and the tables made from them."""
