"""One function for each thing that is checked; each gives a ``Finding`` and raises nothing that is expected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kaapana_assets.accounts import strange_accounts
from kaapana_assets.errors import KaapanaAssetsError
from kaapana_assets.graphql import DagsterClient
from kaapana_assets.health.findings import Finding, State
from kaapana_assets.health.stores import REQUEST_TIMEOUT_S, ask_runner
from kaapana_assets.ingest.spool import open_spool
from kaapana_assets.stores.pacs.remote.dimse import Echo, Peer, echo

if TYPE_CHECKING:
    from kaapana_assets.health.platform_state import PlatformState
    from kaapana_assets.settings import Settings
    from kaapana_assets.stores.checks import StoreReport

_DAGSTER_TIMEOUT_S = 4.0


def check_store(where: str, ask: Callable[[], StoreReport]) -> Finding:
    """A store."""
    try:
        report = ask()
    except KaapanaAssetsError as exc:
        return Finding(state=State.BROKEN, where=where, problem=str(exc))
    counts: dict[str, float] = dict(report.counts)
    if report.free_bytes is not None:
        counts["free_bytes"] = report.free_bytes
    product = f"{report.product} {report.version}".rstrip()
    return Finding(state=State.WORKS, where=where, product=product, counts=counts)


def check_runner(settings: Settings) -> Finding:
    """What launches operators."""
    try:
        product = ask_runner(settings)
    except KaapanaAssetsError as exc:
        return Finding(state=State.BROKEN, where=settings.runner, problem=str(exc))
    return Finding(state=State.WORKS, where=settings.runner, product=product, problem=strange_accounts(settings))


def check_spool(settings: Settings) -> Finding:
    """The spool and the quarantine beside it; a disk with too little room takes nothing in."""
    where = f"folder {settings.paths.incoming}"
    spool = open_spool(settings)
    try:
        backlog = spool.backlog()
        quarantined, _ = spool.newest_quarantined(0)
    except KaapanaAssetsError as exc:
        return Finding(state=State.BROKEN, where=where, problem=str(exc))
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
        problem = f"less than KAAPANA_MIN_FREE_BYTES ({settings.min_free_bytes}) is free: nothing is taken in"
        return Finding(state=State.BROKEN, where=where, counts=counts, problem=problem)
    return Finding(
        state=State.WORKS, where=where, counts=counts, problem=_about_unexpected_entries(backlog.unexpected_entries)
    )


def _about_unexpected_entries(names: Sequence[str]) -> str:
    if not names:
        return ""
    # Not their names, which somebody chose by hand, maybe after a patient.
    return f"{len(names)} files or folders are no series and left alone: take them out, and bring DICOM in by `import`"


def check_receiver(settings: Settings, platform: PlatformState | None) -> Finding:
    """The DICOM receiver, by C-ECHO; without a platform it need not be there."""
    if platform is None:
        host, port, title = settings.receiver_host, settings.receiver_port, settings.receiver_ae_title
    else:
        host, port, title = platform.receiver_host, platform.receiver_port, platform.receiver_ae_title
    # The first of those that may call, else the receiver would turn us away and seem to be down.
    calling = next(iter(settings.allowed_calling_ae_titles), "KAAPANA_STATUS")
    where = f"{title} at {host}:{port}"
    answer = echo(Peer(host, port, title, calling), timeout_s=REQUEST_TIMEOUT_S) if port else Echo.IS_SILENT
    if answer is Echo.ANSWERS:
        return Finding(state=State.WORKS, where=where)
    if answer is Echo.IS_BUSY:
        return Finding(state=State.WORKS, where=where, problem=f"it {answer.value}")
    state = State.OFF if platform is None else State.BROKEN
    return Finding(state=state, where=where, problem=f"it {answer.value} (C-ECHO)")


def check_storage(where: str, ask: Callable[[], str | None]) -> Finding:
    """Dagster's PostgreSQL.

    Args:
        where: its address without password.
        ask: gives what answers in words, None where there is none to be asked.
    """
    try:
        said = ask()
    except KaapanaAssetsError as exc:
        return Finding(state=State.BROKEN, where=where, problem=str(exc))
    return Finding(state=State.OFF if said is None else State.WORKS, where=where, product=said or "")


def check_dagster(platform: PlatformState) -> Finding:
    """Dagster: its webserver answers, the definitions are loaded, and all daemons show that they live."""
    client = DagsterClient(platform.dagster_url, timeout_s=_DAGSTER_TIMEOUT_S)
    problem = ""
    try:
        product = f"Dagster {client.version()}"
        if not client.is_loaded():
            problem = "the definitions are not loaded: see the log of the code server"
        elif silent := client.silent_daemons():
            problem = f"no heartbeat of {', '.join(silent)}: see the log of the daemon"
    except KaapanaAssetsError as exc:
        return Finding(state=State.BROKEN, where=platform.dagster_url, problem=str(exc))
    state = State.BROKEN if problem else State.WORKS
    return Finding(state=state, where=platform.dagster_url, product=product, problem=problem)


def check_parts(platform: PlatformState) -> Finding:
    """The processes of the platform."""
    counts = {"running": len(platform.running), "restarts": platform.restarts}
    where = ", ".join(platform.running)
    if not platform.down:
        return Finding(state=State.WORKS, where=where, counts=counts)
    problem = f"crashed, to be started again: {', '.join(platform.down)}"
    return Finding(state=State.BROKEN, where=where, counts=counts, problem=problem)
