"""The model that authors write, its compilation to Dagster, and the built-in workflows."""
