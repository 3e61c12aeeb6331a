"""Frozen selections of series."""
