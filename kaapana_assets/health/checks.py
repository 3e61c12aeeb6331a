"""One function for each check; it returns a ``HealthFinding`` and turns expected errors into one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kaapana_assets.accounts import strange_accounts
from kaapana_assets.errors import KaapanaAssetsError
from kaapana_assets.graphql import DagsterClient
from kaapana_assets.health.findings import HealthFinding, HealthState
from kaapana_assets.health.stores import REQUEST_TIMEOUT_S, ask_runner
from kaapana_assets.ingest.spool import open_spool
from kaapana_assets.stores.pacs.remote.dimse import Echo, Peer, echo

if TYPE_CHECKING:
    from kaapana_assets.health.platform_state import PlatformState
    from kaapana_assets.settings import Settings
    from kaapana_assets.stores.checks import StoreReport

_DAGSTER_TIMEOUT_S = 4.0


def check_store(where: str, ask: Callable[[], StoreReport]) -> HealthFinding:
    """Check a store by its own ``check``, given as ``ask``."""
    try:
        report = ask()
    except KaapanaAssetsError as exc:
        return HealthFinding(state=HealthState.BROKEN, where=where, problem=str(exc))
    counts: dict[str, float] = dict(report.counts)
    if report.free_bytes is not None:
        counts["free_bytes"] = report.free_bytes
    product = f"{report.product} {report.version}".rstrip()
    return HealthFinding(state=HealthState.WORKS, where=where, product=product, counts=counts)


def check_runner(settings: Settings) -> HealthFinding:
    """Check the runner, which launches operators."""
    try:
        product = ask_runner(settings)
    except KaapanaAssetsError as exc:
        return HealthFinding(state=HealthState.BROKEN, where=settings.runner, problem=str(exc))
    return HealthFinding(
        state=HealthState.WORKS, where=settings.runner, product=product, problem=strange_accounts(settings)
    )


def check_spool(settings: Settings) -> HealthFinding:
    """Check the spool and the quarantine; the receiver refuses instances when the disk is nearly full."""
    where = f"folder {settings.paths.incoming}"
    spool = open_spool(settings)
    try:
        backlog = spool.backlog()
        quarantined, _ = spool.newest_quarantined(0)
    except KaapanaAssetsError as exc:
        return HealthFinding(state=HealthState.BROKEN, where=where, problem=str(exc))
    counts: dict[str, float] = {
        "series": backlog.series,
        "instances": backlog.instances,
        "open_series": backlog.open_series,
    }
    if backlog.oldest_age_s is not None:
        counts["oldest_age_s"] = round(backlog.oldest_age_s, 1)
    counts |= {
        "left_alone": len(backlog.unexpected_entries),
        "quarantined": quarantined,
        "free_bytes": backlog.free_bytes,
    }
    if backlog.free_bytes < settings.min_free_bytes:
        problem = f"less than KAAPANA_MIN_FREE_BYTES ({settings.min_free_bytes}) is free: the receiver accepts nothing"
        return HealthFinding(state=HealthState.BROKEN, where=where, counts=counts, problem=problem)
    return HealthFinding(
        state=HealthState.WORKS, where=where, counts=counts, problem=_foreign_entries(backlog.unexpected_entries)
    )


def _foreign_entries(names: Sequence[str]) -> str:
    if not names:
        return ""
    # Without their names: a person chose them, maybe after a patient.
    return f"{len(names)} files or folders that are no series are ignored: move them away, and add DICOM by `import`"


def check_receiver(settings: Settings, platform: PlatformState | None) -> HealthFinding:
    """Check the DICOM receiver by C-ECHO; without a platform a silent receiver is no failure."""
    if platform is None:
        host, port, title = settings.receiver_host, settings.receiver_port, settings.receiver_ae_title
    else:
        host, port, title = platform.receiver_host, platform.receiver_port, platform.receiver_ae_title
    # An allowed calling AE title: a receiver that rejects the association would seem to be down.
    calling = next(iter(settings.allowed_calling_ae_titles), "KAAPANA_STATUS")
    where = f"{title} at {host}:{port}"
    answer = echo(Peer(host, port, title, calling), timeout_s=REQUEST_TIMEOUT_S) if port else Echo.IS_SILENT
    if answer is Echo.ANSWERS:
        return HealthFinding(state=HealthState.WORKS, where=where)
    if answer is Echo.IS_BUSY:
        return HealthFinding(state=HealthState.WORKS, where=where, problem=f"it {answer.value}")
    state = HealthState.OFF if platform is None else HealthState.BROKEN
    return HealthFinding(state=state, where=where, problem=f"it {answer.value} (C-ECHO)")


def check_storage(where: str, ask: Callable[[], str | None]) -> HealthFinding:
    """Check Dagster's PostgreSQL.

    Args:
        where: its address without password.
        ask: returns the product and version of the server, None if there is none to check.
    """
    try:
        product = ask()
    except KaapanaAssetsError as exc:
        return HealthFinding(state=HealthState.BROKEN, where=where, problem=str(exc))
    return HealthFinding(
        state=HealthState.OFF if product is None else HealthState.WORKS, where=where, product=product or ""
    )


def check_dagster(platform: PlatformState) -> HealthFinding:
    """Check Dagster: its webserver answers, the definitions are loaded, all daemons have a heartbeat."""
    client = DagsterClient(platform.dagster_url, timeout_s=_DAGSTER_TIMEOUT_S)
    problem = ""
    try:
        product = f"Dagster {client.version()}"
        if not client.is_loaded():
            problem = "the definitions are not loaded: see the log of the code server"
        elif silent := client.silent_daemons():
            problem = f"no heartbeat of {', '.join(silent)}: see the log of the daemon"
    except KaapanaAssetsError as exc:
        return HealthFinding(state=HealthState.BROKEN, where=platform.dagster_url, problem=str(exc))
    state = HealthState.BROKEN if problem else HealthState.WORKS
    return HealthFinding(state=state, where=platform.dagster_url, product=product, problem=problem)


def check_parts(platform: PlatformState) -> HealthFinding:
    """Check that all processes of the platform run."""
    counts = {"running": len(platform.running), "restarts": platform.restarts}
    where = ", ".join(platform.running)
    if not platform.down:
        return HealthFinding(state=HealthState.WORKS, where=where, counts=counts)
    problem = f"crashed, to be started again: {', '.join(platform.down)}"
    return HealthFinding(state=HealthState.BROKEN, where=where, counts=counts, problem=problem)
