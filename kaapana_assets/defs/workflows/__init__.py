"""Workflows in Dagster: compiled to assets and jobs, whose ops call ``execution``."""
