"""Checks of the stores and the runner in the settings, with short timeouts and without retries."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from kaapana_assets.containers.factory import open_runner
from kaapana_assets.errors import ConfigurationError, KaapanaAssetsError, StoreUnavailable
from kaapana_assets.health.parallel import ParallelCalls
from kaapana_assets.stores.factory import open_index, open_objects, open_pacs

if TYPE_CHECKING:
    from kaapana_assets.settings import Settings
    from kaapana_assets.stores.checks import StoreReport

REQUEST_TIMEOUT_S = 2.0
DEADLINE_S = 5.0


def store_checks(settings: Settings) -> dict[str, Callable[[], StoreReport]]:
    """The check of each store by name; each raises the errors of the ``check`` of its protocol."""
    impatient = settings.model_copy(
        update={
            "dicomweb_timeout_s": min(REQUEST_TIMEOUT_S, settings.dicomweb_timeout_s),
            "dicomweb_attempts": 1,
            "elasticsearch_timeout_s": min(REQUEST_TIMEOUT_S, settings.elasticsearch_timeout_s),
            "elasticsearch_patience_s": 0.0,
            "s3_timeout_s": min(REQUEST_TIMEOUT_S, settings.s3_timeout_s),
            "s3_attempts": 1,
        }
    )

    def pacs() -> StoreReport:
        with closing(open_pacs(impatient)) as opened:
            return opened.check()

    def index() -> StoreReport:
        with closing(open_index(impatient)) as opened:
            return opened.check()

    return {"pacs": pacs, "index": index, "objects": lambda: open_objects(impatient).check()}


def ask_runner(settings: Settings) -> str:
    """Name and version of the runner; raises the errors of ``Runner.check``."""
    return open_runner(settings.model_copy(update={"kubernetes_patience_s": 0.0})).check()


def check_before_start(settings: Settings, say: Callable[[str], None]) -> None:
    """Check the stores and the runner before the platform starts.

    Args:
        settings: the settings of the platform.
        say: called with one line for each that does not answer, which does not prevent the start.

    Raises:
        ConfigurationError: a store or the runner cannot work with these settings.
    """
    where = {**settings.stores(), "runner": settings.runner}
    parallel = ParallelCalls[KaapanaAssetsError | None](lambda _, why: StoreUnavailable(why), deadline_s=DEADLINE_S)
    checks: dict[str, Callable[[], object]] = {**store_checks(settings), "runner": lambda: ask_runner(settings)}
    errors = parallel.start({name: _error_of(check) for name, check in checks.items()})()
    unusable = [f"{name}: {error}" for name, error in errors.items() if isinstance(error, ConfigurationError)]
    if unusable:
        raise ConfigurationError("; ".join(unusable))
    for name, error in errors.items():
        if error is not None:
            reason = " ".join(str(error).split())
            say(f"{name:<12} {where[name]} does not answer; work waits until it does ({reason})")


def _error_of(check: Callable[[], object]) -> Callable[[], KaapanaAssetsError | None]:
    def error() -> KaapanaAssetsError | None:
        try:
            check()
        except KaapanaAssetsError as exc:
            return exc
        return None

    return error
