"""The metadata index: one searchable document per series."""
