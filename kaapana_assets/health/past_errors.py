"""The latest errors: failed runs and quarantined files."""

from __future__ import annotations

import re
from collections import OrderedDict
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from kaapana_assets.containers.reasons import short_reason
from kaapana_assets.errors import DagsterUnavailable, KaapanaAssetsError
from kaapana_assets.graphql import DagsterClient
from kaapana_assets.health.findings import ErrorKind, PastError
from kaapana_assets.ingest.spool import IMPORT, open_spool
from kaapana_assets.shown import shown

if TYPE_CHECKING:
    from kaapana_assets.graphql.answers import Run
    from kaapana_assets.settings import Settings

MAX_ERRORS = 5
_MAX_REASON_LENGTH = 300
_CACHED_REASONS = 100
_TIMEOUT_S = 10.0
_PLATFORM_NAME = re.compile(r"(file|[0-9.]+(\.dcm)?)-[0-9a-f]{12}\.[a-z]{2,4}")


class FailedRuns:
    """The latest failed runs; the reason of each is asked only once."""

    def __init__(self) -> None:
        self._reasons: OrderedDict[str, str] = OrderedDict()

    def newest(self, dagster_url: str) -> tuple[PastError, ...]:
        """The latest failed runs, newest first; none while Dagster does not answer."""
        client = DagsterClient(dagster_url, timeout_s=_TIMEOUT_S)
        try:
            return tuple(
                PastError(
                    kind=ErrorKind.RUN,
                    time=datetime.fromtimestamp(run.end_time or run.update_time or 0, timezone.utc),
                    what=_name(run),
                    reason=self._reason(client, run.run_id),
                    where=client.run_url(run.run_id),
                )
                for run in client.runs(statuses=["FAILURE"], limit=MAX_ERRORS)
            )
        except KaapanaAssetsError:
            return ()  # check_dagster reports that it does not answer

    def _reason(self, client: DagsterClient, run_id: str) -> str:
        if run_id not in self._reasons:
            try:
                reason = reason_line(client.first_failure(run_id) or "its log gives no reason")
            except DagsterUnavailable:
                return "its log cannot be read at the moment"
            self._reasons[run_id] = reason
            while len(self._reasons) > _CACHED_REASONS:
                self._reasons.popitem(last=False)
        return self._reasons[run_id]


def newest_quarantined(settings: Settings) -> tuple[PastError, ...]:
    """The latest quarantined files, newest first."""
    try:
        _, files = open_spool(settings).newest_quarantined(MAX_ERRORS)
    except KaapanaAssetsError:
        return ()  # check_spool reports that it cannot be read
    return tuple(
        PastError(
            kind=ErrorKind.FILE,
            time=each.time,
            what=f"{_safe_name(each.path.name)} from {each.origin if '/' not in each.origin else IMPORT}",
            reason=reason_line(each.reason),
            where=shown(each.path.with_name(_safe_name(each.path.name))),
        )
        for each in files
    )


def _safe_name(name: str) -> str:
    """The name of a quarantined file, without the part that a person chose, which earlier versions kept."""
    kept = _PLATFORM_NAME.fullmatch(name)
    return name if kept else f"*{name[max(name.rfind('-'), 0) :]}"


def reason_line(text: str) -> str:
    """The line of a text that gives the reason, shortened to 300 characters."""
    line = short_reason(text)
    return line if len(line) <= _MAX_REASON_LENGTH else f"{line[:_MAX_REASON_LENGTH]} …"


def _name(run: Run) -> str:
    partition = run.tags.get("dagster/partition")
    return f"{run.job} of {partition}" if partition else run.job
