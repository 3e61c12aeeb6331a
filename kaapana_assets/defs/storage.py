"""Dagster's PostgreSQL storage, made to wait for a server that is away instead of failing the run.

Dagster retries a connection for about 6 s. A run of hours must survive a restart or replacement of the server, so this
storage retries new connections for ``KAAPANA_POSTGRES_PATIENCE_S``. A statement whose connection breaks is not
retried, because it may have been executed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, cast

import psycopg2
from dagster._core.storage.config import PostgresStorageConfig
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy import Engine, QueuePool, event
from sqlalchemy.exc import DisconnectionError

from kaapana_assets.retry import Patience, repeating
from kaapana_assets.settings import load_settings

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_CONNECT_S = 10
_SILENCE_MS = 60_000  # a peer that acknowledges nothing for this long is gone
_TELL_EVERY_S = 15.0

logger = logging.getLogger(__name__)


class ReconnectingPostgresStorage(DagsterPostgresStorage):
    """A ``DagsterPostgresStorage`` that retries connections for longer.

    In the webserver, Dagster makes connection pools of its own. There a page fails instead of hanging while the server
    is away, and broken connections in the pools are replaced.
    """

    def __init__(self, postgres_url: str, *, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url, inst_data=inst_data)
        patience_s = load_settings().postgres_patience_s
        for storage in (self._event_log_storage, self._run_storage, self._schedule_storage):
            retry_connections(storage._engine, patience_s)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> ReconnectingPostgresStorage:
        """Make it from ``storage: custom: config`` in dagster.yaml, which has the form of Dagster's own storage."""
        return cls(pg_url_from_config(cast("PostgresStorageConfig", config_value)), inst_data=inst_data)


@event.listens_for(QueuePool, "checkout")
def _still_works(connection: Any, _record: object, _proxy: object) -> None:  # noqa: ANN401
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except psycopg2.Error as exc:
        raise DisconnectionError("the server was started again") from exc


def retry_connections(engine: Engine, patience_s: float) -> None:
    """Make the engine retry each new connection for that many seconds, and detect a dead peer."""

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, _record: object, arguments: list[Any], given: dict[str, Any]) -> Any:  # noqa: ANN401
        given.setdefault("connect_timeout", _CONNECT_S)
        given.setdefault("tcp_user_timeout", _SILENCE_MS)
        patience = Patience(patience_s, first_s=_FIRST_WAIT_S, longest_s=_LONGEST_WAIT_S)
        began, told = time.monotonic(), 0.0

        def tell(error: BaseException, _pause_s: float) -> None:
            nonlocal told
            now = time.monotonic()
            if patience.failures == 1 or now - told > _TELL_EVERY_S:
                told = now
                reason = str(error).strip().splitlines()[-1:]
                logger.warning("waiting for Dagster's PostgreSQL, so far %.0f s: %s", now - began, *reason)

        again = repeating(patience, lambda exc: isinstance(exc, psycopg2.OperationalError), before_pause=tell)
        connection = again(dialect.connect, *arguments, **given)
        if patience.failures:
            logger.warning("Dagster's PostgreSQL is back after %.1f s", time.monotonic() - began)
        return connection
