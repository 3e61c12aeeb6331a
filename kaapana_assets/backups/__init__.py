"""Backups of a home and homes made from them; the stores that are servers have their own."""
