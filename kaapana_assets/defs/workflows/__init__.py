"""Compiles workflows to Dagster's assets and jobs, whose ops call ``execution``."""
