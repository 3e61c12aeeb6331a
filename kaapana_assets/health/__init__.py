"""Whether everything works: stores, spool, receiver and Dagster, asked at once and within a few seconds.

What a platform is and which one is up is told by the caller (``PlatformState``); how a store is
checked is the store's own matter (``check``). Nothing here starts, mends or writes anything.
"""
