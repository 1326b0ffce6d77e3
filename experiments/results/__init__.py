"""The published results: a CSV file of metrics for each run, and code that makes tables from these files."""
