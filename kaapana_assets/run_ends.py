"""Explains in plain words why Dagster marked a run as failed."""

_FROM_OUTSIDE = "marked as failed from outside the execution context"  # all that Dagster says when the process is gone
_PROCESS_ENDED = "the run's process ended: it was killed, it ran out of memory, or its machine stopped"


def reason_of_end(said: str) -> str:
    """Return Dagster's reason for a failed run, or a plainer one if Dagster only knows that the process is gone."""
    return _PROCESS_ENDED if _FROM_OUTSIDE in said else said
