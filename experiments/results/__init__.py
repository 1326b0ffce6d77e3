"""The published results: a CSV file of metrics for each run, and the code that makes tables from them."""
