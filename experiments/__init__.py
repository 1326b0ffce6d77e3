"""One script per article, then one per verb."""
