"""Dagster's storage on a PostgreSQL server of the site, and checks that a server answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg2

from kaapana_assets import home_record
from kaapana_assets.errors import ConfigurationError, StoreUnavailable
from kaapana_assets.settings import Settings
from kaapana_assets.supervision.postgres import ROLE
from kaapana_assets.supervision.record import running_platform

if TYPE_CHECKING:
    from psycopg2.extensions import connection

_CONNECT_S = 10
_DEFAULT_PORT = 5432
_SCHEME = "postgresql+psycopg2"  # without its name SQLAlchemy may choose another driver
# Errors about credentials, a missing database or a rule of the server are permanent. psycopg2 gives no error code
# for a failed connection, so these words are searched for in the message.
_FOR_GOOD = ("authentication", "password", "pg_hba.conf", "does not exist", "permission denied", "ssl", "certificate")


def storage_of(settings: Settings) -> Mapping[str, Any]:
    """Return Dagster's configuration of the database; the password stays in the environment.

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


def check_server(settings: Settings, *, connect_s: int = _CONNECT_S) -> str:
    """Connect to ``KAAPANA_POSTGRES_URL`` and return a description of the server.

    Args:
        settings: settings with its address and password.
        connect_s: seconds to wait for it, at least 2.

    Raises:
        ConfigurationError: the server refuses the user, or has no such database.
        StoreUnavailable: no server answers.
    """
    address = urlsplit(settings.postgres_url)
    product = _product(_connected(settings, connect_s))
    return f"{product} at {address.hostname}:{address.port or _DEFAULT_PORT}{address.path}"


def claim_database(settings: Settings, *, accept_copy: bool = False) -> None:
    """Record in the database that it belongs to this home, since two platforms would mix up their runs in it.

    Args:
        settings: settings with its address and password.
        accept_copy: this home is a copy, and its original is gone.

    Raises:
        ConfigurationError: the database belongs to another home or to this home's original, or the user may not
            create tables in it.
        StoreUnavailable: no server answers.
    """
    where = f"KAAPANA_POSTGRES_URL={settings.postgres_url}"
    own, here = home_record.platform_id(settings.home), home_record.identity_of(settings.home)
    noted = json.dumps(home_record.to_json(here))
    database = _connected(settings, _CONNECT_S)
    try:
        with database, database.cursor() as cursor:
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS kaapana_home "
                "(one boolean PRIMARY KEY DEFAULT true CHECK (one), id text NOT NULL, path text NOT NULL)"
            )
            cursor.execute("ALTER TABLE kaapana_home ADD COLUMN IF NOT EXISTS folder text")
            cursor.execute(
                "INSERT INTO kaapana_home (id, path, folder) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (own, here.path, noted),
            )
            cursor.execute("SELECT id, path, folder FROM kaapana_home FOR UPDATE")
            owner, path, folder = cursor.fetchone()
            if owner != own:
                whose = "a former" if path == here.path else "another"
                raise ConfigurationError(
                    f"{where} has the runs of {whose} KAAPANA_HOME ({path}): make a database for this one"
                )
            _check_owner(where, path, folder, here, accept_copy=accept_copy)
            cursor.execute("UPDATE kaapana_home SET path = %s, folder = %s", (here.path, noted))
    except psycopg2.Error as exc:
        raise ConfigurationError(f"{where} can't be used: {' '.join(str(exc).split())}") from exc
    finally:
        database.close()


def _check_owner(where: str, path: str, folder: str | None, here: home_record.Identity, *, accept_copy: bool) -> None:
    """Refuse a database that belongs to the original of a copied home.

    Args:
        where: the setting and its value, for the error.
        path: path of the home that owns the database.
        folder: identity of that home as JSON; None if an earlier version recorded only the path.
        here: identity of this home.
        accept_copy: the original is gone.
    """
    owner = home_record.identity_from(json.loads(folder)) if folder else None
    if owner is None:
        # Earlier versions recorded only the path.
        is_ours = path == here.path or not home_record.is_home_at(Path(path), but=here)
    else:
        is_ours = owner.is_same_folder(here)
    if is_ours:
        return
    if not accept_copy:
        raise ConfigurationError(
            f"{where} belongs to the home {path}, and {here.path} is a copy of that: two platforms would take each "
            "other's runs for theirs. If the original is gone for good: kaapana-assets up --accept-copy. If not, "
            "give this one servers of its own"
        )
    original = running_platform(Path(path)) if owner is not None and home_record.is_there(owner) else None
    if original is not None:
        raise ConfigurationError(
            f"{where} belongs to the home {path}, whose platform is up (process {original.pid}): stop it first, and "
            "remove that home if this copy is to take its place"
        )


def _connected(settings: Settings, connect_s: int) -> connection:
    where = f"KAAPANA_POSTGRES_URL={settings.postgres_url}"
    password = settings.postgres_password.get_secret_value() or None
    try:
        return psycopg2.connect(settings.postgres_url, password=password, connect_timeout=connect_s)
    except psycopg2.OperationalError as exc:
        said = " ".join(str(exc).split())
        if any(word in said.lower() for word in _FOR_GOOD):
            raise ConfigurationError(
                f"{where} refuses: {said}; see KAAPANA_POSTGRES_PASSWORD, and make the database and its user first"
            ) from exc
        raise StoreUnavailable(f"{where} does not answer: {said}") from exc
    except psycopg2.Error as exc:
        raise ConfigurationError(f"{where} can't be used: {' '.join(str(exc).split())}") from exc


def check_embedded(socket_folder: Path, *, connect_s: int = _CONNECT_S) -> str:
    """Connect to the platform's own server and return its description.

    Raises:
        StoreUnavailable: the server does not answer.
    """
    try:
        connection = psycopg2.connect(host=str(socket_folder), user=ROLE, dbname=ROLE, connect_timeout=connect_s)
    except psycopg2.Error as exc:
        raise StoreUnavailable(f"the platform's PostgreSQL does not answer: {' '.join(str(exc).split())}") from exc
    return _product(connection)


def _product(connection: connection) -> str:
    try:
        return f"PostgreSQL {connection.server_version // 10_000}"
    finally:
        connection.close()
