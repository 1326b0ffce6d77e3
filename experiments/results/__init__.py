"""The published results: for each run a CSV file with the metrics of each epoch, and code for tables."""
