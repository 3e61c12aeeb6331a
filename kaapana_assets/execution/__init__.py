"""A run of a workflow over series, without Dagster: staging, launches, verification, reports."""
