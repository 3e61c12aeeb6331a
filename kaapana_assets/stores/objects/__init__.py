"""The object store: the buckets that results are put into."""
