"""The platform on one machine: its processes, how they are started, watched and ended.

Nothing here imports Dagster: its parts are processes, and it is asked over GraphQL.
"""
