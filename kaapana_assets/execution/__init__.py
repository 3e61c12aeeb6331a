"""Runs the operators of a workflow on series, without Dagster: staging, launches, verification, reports."""
