"""The searchable documents of all series."""
