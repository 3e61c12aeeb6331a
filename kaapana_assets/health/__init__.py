"""Checks the stores, the spool, the receiver and Dagster in parallel, within a few seconds, and serves the report.

The caller provides the state of the running platform (``PlatformState``); each store checks itself
(``check``). No module of this folder starts, repairs or writes anything.
"""
