"""Forgetting: removes a series, a study or a patient from everything the platform keeps, and records it.

``selection`` finds the series; ``results``, ``incoming``, ``copies`` and ``dagster_events`` clear their data;
``forget`` decides the order and resumes after a crash.
"""
