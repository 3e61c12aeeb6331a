"""Starts, watches and ends the platform's processes on one machine.

Nothing here imports Dagster: it runs as processes of its own and is reached over GraphQL.
"""
