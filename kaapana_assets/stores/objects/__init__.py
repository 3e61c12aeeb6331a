"""The buckets that results are put into."""
