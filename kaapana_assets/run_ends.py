"""Says in plain words what Dagster says of a run whose process ended."""

_FROM_OUTSIDE = "marked as failed from outside the execution context"  # all that Dagster says then
_PROCESS_ENDED = "the run's process ended: it was killed, it ran out of memory, or its machine stopped"


def reason_of_end(said: str) -> str:
    """Why a run failed, as Dagster says it; in plain words where it only says that something ended the run."""
    return _PROCESS_ENDED if _FROM_OUTSIDE in said else said
