"""Runs all checks in parallel and collects one report."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

from kaapana_assets.health import checks
from kaapana_assets.health.findings import HealthFinding, HealthReport, HealthState, PastError
from kaapana_assets.health.parallel import ParallelCalls
from kaapana_assets.health.past_errors import FailedRuns, newest_quarantined
from kaapana_assets.health.stores import DEADLINE_S, store_checks
from kaapana_assets.health.workflow_files import WorkflowFilesCheck

if TYPE_CHECKING:
    from kaapana_assets.health.platform_state import PlatformState
    from kaapana_assets.settings import Settings


class HealthCheck:
    """Makes health reports; may be called repeatedly, but not concurrently.

    Args:
        settings: the stores, and the address of a receiver that runs without a platform.
        platform: returns the state of the platform that runs on the home, None if none runs.
        storage: returns the product and version of Dagster's PostgreSQL, None if there is none to check.
        deadline_s: checks without an answer by then are reported as broken.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        platform: Callable[[], PlatformState | None],
        storage: Callable[[], str | None],
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._settings = settings
        self._platform = platform
        self._storage = storage
        self._failed_runs = FailedRuns()
        self._workflow_files = WorkflowFilesCheck(settings)
        self._findings = ParallelCalls[HealthFinding](self._fallback, deadline_s=deadline_s)
        self._errors = ParallelCalls[tuple[PastError, ...]](lambda _name, _why: (), deadline_s=deadline_s)

    def report(self) -> HealthReport:
        """Run all checks and return the report."""
        platform = self._platform()
        findings = self._findings.start(self._checks(platform))
        lists: dict[str, Callable[[], tuple[PastError, ...]]] = {"files": partial(newest_quarantined, self._settings)}
        if platform is not None:
            lists["runs"] = partial(self._failed_runs.newest, platform.dagster_url)
        errors = self._errors.start(lists)
        found = findings()
        past = [error for each in errors().values() for error in each]
        past += platform.crashes if platform else ()
        return HealthReport(
            time=datetime.now(timezone.utc),
            home=self._settings.home,
            is_up=platform is not None,
            dagster_url=platform.dagster_url if platform else "",
            health_url=platform.health_url if platform else "",
            findings=found,
            errors=tuple(sorted(past, key=lambda error: error.time, reverse=True)),
        )

    def _checks(self, platform: PlatformState | None) -> dict[str, Callable[[], HealthFinding]]:
        where = self._settings.stores()
        calls: dict[str, Callable[[], HealthFinding]] = {
            name: partial(checks.check_store, where[name], ask) for name, ask in store_checks(self._settings).items()
        }
        calls["runner"] = partial(checks.check_runner, self._settings)
        calls["workflows"] = self._workflow_files.check
        calls["spool"] = partial(checks.check_spool, self._settings)
        calls["receiver"] = partial(checks.check_receiver, self._settings, platform)
        calls["storage"] = partial(checks.check_storage, self._where("storage"), self._storage)
        if platform is not None:
            calls["dagster"] = partial(checks.check_dagster, platform)
            calls["parts"] = partial(checks.check_parts, platform)
        return calls

    def _fallback(self, name: str, why: str) -> HealthFinding:
        return HealthFinding(state=HealthState.BROKEN, where=self._where(name), problem=why)

    def _where(self, name: str) -> str:
        if name == "storage":
            return self._settings.postgres_url or "the platform's own PostgreSQL"
        return {**self._settings.stores(), "runner": self._settings.runner}.get(name, "")
