"""Freezes selections of series as cohorts, records them in Dagster, and reads them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from kaapana_assets.cohorts import cohort as cohort_files
from kaapana_assets.cohorts.cohort import Cohort
from kaapana_assets.errors import NotFound
from kaapana_assets.operations.session import Session

PARTITIONS = "cohorts"
_RECORD_JOB = "record_cohort"
_RECORD_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Recorded:
    """The result of recording a cohort as an asset.

    Attributes:
        status: final status of Dagster's run, such as ``SUCCESS``.
        url: page of the asset's partition, or of the run if it did not succeed.
    """

    status: str
    url: str

    @property
    def succeeded(self) -> bool:
        """Whether the cohort is recorded as an asset."""
        return self.status == "SUCCESS"


def freeze(session: Session, name: str, query: str) -> tuple[Cohort, Path]:
    """Freeze the series that match a query now as a cohort; return the cohort and its file.

    Raises:
        InvalidIdentifier: the name is not valid.
        QueryError: the query cannot be parsed.
        NotFound: no series matches.
        ConflictingContent: a cohort of that name has other series.
        StoreUnavailable: the index does not answer, or the disk is full.
    """
    frozen = cohort_files.freeze(session.index, name=name, query=query, now=datetime.now(timezone.utc))
    return frozen, cohort_files.save(session.settings.paths.cohorts, frozen)


def record(session: Session, name: str) -> Recorded:
    """Add a cohort to Dagster's partitions, and record it as an asset.

    Raises:
        DagsterUnavailable: Dagster does not answer; the platform records the cohort once it is up.
    """
    dagster = session.dagster
    dagster.add_dynamic_partition(PARTITIONS, name)
    run_id = dagster.launch(_RECORD_JOB, partition=name)
    ended = dagster.wait(run_id, timeout_s=_RECORD_TIMEOUT_S)
    return Recorded(ended.status, dagster.asset_url("cohort", name) if ended.succeeded else dagster.run_url(run_id))


def read(session: Session, name: str) -> Cohort:
    """Return the cohort of that name.

    Raises:
        NotFound: there is no such cohort, or its file is damaged.
    """
    return cohort_files.read(session.settings.paths.cohorts, name)


def all_cohorts(session: Session) -> tuple[list[Cohort], list[str]]:
    """Return all cohorts, sorted by name, and the errors in damaged files of cohorts."""
    folder = session.settings.paths.cohorts
    found, problems = [], []
    for name in cohort_files.names(folder):
        try:
            found.append(cohort_files.read(folder, name))
        except NotFound as exc:
            problems.append(str(exc))
    return found, problems


def free_name(session: Session, name: str, query: str) -> str:
    """Return the name, with ``-2``, ``-3`` … if a cohort of other series than match now has it.

    Raises:
        NotFound: no series matches.
    """
    frozen = cohort_files.freeze(session.index, name=name, query=query, now=datetime.now(timezone.utc))
    return cohort_files.name_for(session.settings.paths.cohorts, frozen)
