"""Forgetting: a series, a study or a patient leaves all that this platform keeps, with a record of it.

Which series are meant is said in ``selection``, what is cleared in ``results``, ``incoming``, ``copies`` and
``dagster_events``, in which order, and how it goes on after a crash, in ``forget``.
"""
