"""Dagster's storage on a PostgreSQL server of the site, instead of one that the platform starts."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg2

from kaapana_assets.errors import ConfigurationError, StoreUnavailable
from kaapana_assets.settings import Settings

_CONNECT_S = 10
_DEFAULT_PORT = 5432
_SCHEME = "postgresql+psycopg2"  # without the driver's name SQLAlchemy takes another one
# What a server says of credentials, a database or a rule of its own is for good. psycopg2 gives no code
# for what happens while a connection is made, so these words are looked for.
_FOR_GOOD = ("authentication", "password", "pg_hba.conf", "does not exist", "permission denied", "ssl", "certificate")


def storage_of(settings: Settings) -> Mapping[str, Any]:
    """Dagster's configuration of the database; the password stays in the environment.

    References: ``dagster_postgres.utils.pg_url_from_config``.
    """
    if not settings.postgres_password.get_secret_value():
        return {"postgres_url": f"{_SCHEME}://{settings.postgres_url.partition('://')[2]}"}
    address = urlsplit(settings.postgres_url)
    return {
        "postgres_db": {
            "scheme": _SCHEME,
            "username": unquote(address.username or ""),
            "password": {"env": "KAAPANA_POSTGRES_PASSWORD"},
            "hostname": address.hostname,
            "port": address.port or _DEFAULT_PORT,
            "db_name": unquote(address.path.lstrip("/")),
            "params": dict(parse_qsl(address.query)),
        }
    }


def check_server(settings: Settings) -> str:
    """What answers at ``KAAPANA_POSTGRES_URL``, in words; the database is this home's from now on.

    Raises:
        ConfigurationError: it refuses the user, has no such database, or that is another home's.
        StoreUnavailable: nothing answers.
    """
    where = f"KAAPANA_POSTGRES_URL={settings.postgres_url}"
    password = settings.postgres_password.get_secret_value() or None
    try:
        connection = psycopg2.connect(settings.postgres_url, password=password, connect_timeout=_CONNECT_S)
    except psycopg2.OperationalError as exc:
        said = " ".join(str(exc).split())
        if any(word in said.lower() for word in _FOR_GOOD):
            raise ConfigurationError(
                f"{where} refuses: {said}; see KAAPANA_POSTGRES_PASSWORD, and make the database and its user first"
            ) from exc
        raise StoreUnavailable(f"{where} does not answer: {said}") from exc
    except psycopg2.Error as exc:
        raise ConfigurationError(f"{where} can't be used: {' '.join(str(exc).split())}") from exc
    try:
        version = connection.server_version
        _claim(connection, settings)
    except psycopg2.Error as exc:
        raise ConfigurationError(f"{where} can't be used: {' '.join(str(exc).split())}") from exc
    finally:
        connection.close()
    address = urlsplit(settings.postgres_url)
    return f"PostgreSQL {version // 10_000} at {address.hostname}:{address.port or _DEFAULT_PORT}{address.path}"


def _claim(connection: Any, settings: Settings) -> None:  # noqa: ANN401 - psycopg2 has no types
    """Two platforms on one database would take each other's partitions and runs for theirs."""
    file = settings.home / "platform-id"
    if not file.exists():
        settings.home.mkdir(parents=True, exist_ok=True)
        file.write_text(uuid.uuid4().hex)
    own = file.read_text().strip()
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS kaapana_home "
            "(one boolean PRIMARY KEY DEFAULT true CHECK (one), id text NOT NULL, path text NOT NULL)"
        )
        cursor.execute(
            "INSERT INTO kaapana_home (id, path) VALUES (%s, %s) ON CONFLICT DO NOTHING", (own, str(settings.home))
        )
        cursor.execute("SELECT id, path FROM kaapana_home")
        owner, path = cursor.fetchone()
    if owner != own:
        raise ConfigurationError(
            f"KAAPANA_POSTGRES_URL={settings.postgres_url} has the runs of another KAAPANA_HOME ({path}): "
            "make a database for this one"
        )
