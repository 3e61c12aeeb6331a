"""Checks the users that operators and PostgreSQL run as, where the platform is root and can choose them.

Each needs a user id that no one else has. A process that runs as a person's account can read that person's files,
and that person can read the process's. A process that runs as ``nobody`` shares its user with every other program
that runs as ``nobody``.
"""

from __future__ import annotations

import os
import pwd
from pathlib import PurePath

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.settings import Settings
from kaapana_assets.settings.user_ids import NOBODY_UID

_NO_LOGIN = ("nologin", "false", "true", "sync")


def check_operator_account(settings: Settings) -> None:
    """Check that operators do not run as a person's account by accident.

    Raises:
        ConfigurationError: the default user id is a person's account, and KAAPANA_OPERATOR_UID does not choose it.
    """
    if "operator_uid" not in settings.model_fields_set and os.geteuid() == 0:
        _check_chosen("KAAPANA_OPERATOR_UID", settings.operator_uid, "operators would run")


def check_postgres_account(settings: Settings) -> None:
    """Check that the platform's PostgreSQL runs as a user of its own.

    Raises:
        ConfigurationError: its user is ``nobody``, the operators' user, or a person's account that
            KAAPANA_POSTGRES_UID does not choose.
    """
    if settings.postgres_url or os.geteuid() != 0:
        return
    uid = settings.postgres_uid
    if uid == NOBODY_UID:
        raise ConfigurationError(
            f"KAAPANA_POSTGRES_UID={uid} is `nobody`, whose files other programs reach: give a number of its own"
        )
    if uid == settings.operator_uid:
        raise ConfigurationError(
            f"KAAPANA_POSTGRES_UID and KAAPANA_OPERATOR_UID are both {uid}: operators could change the database"
        )
    if "postgres_uid" not in settings.model_fields_set:
        _check_chosen("KAAPANA_POSTGRES_UID", uid, "the platform's PostgreSQL would run")


def strange_accounts(settings: Settings) -> str:
    """Return a warning about the users of operators and PostgreSQL; empty if each has a user of its own."""
    if os.geteuid() != 0:
        return ""
    found, chosen = [], {}
    if settings.runner == "process":
        found.append("operators are processes of root, as the platform is: run it as a user of its own")
    else:
        chosen["KAAPANA_OPERATOR_UID"] = settings.operator_uid
    if not settings.postgres_url:
        chosen["KAAPANA_POSTGRES_UID"] = settings.postgres_uid
    for name, uid in chosen.items():
        if uid == NOBODY_UID:
            found.append(f"{name}={uid} is `nobody`, which other programs run as, too")
        elif person := person_of(uid):
            found.append(f"{name}={uid} is the account of {person}, who can reach what runs under it")
    return "; ".join(found)


def person_of(uid: int) -> str:
    """Return the name of the account with this user id if a person can log in to it; else an empty string.

    An account without a login shell belongs to a program, such as one made for operators.
    """
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        return ""
    return "" if PurePath(account.pw_shell).name in _NO_LOGIN else account.pw_name


def _check_chosen(setting: str, uid: int, what: str) -> None:
    person = person_of(uid)
    if person:
        raise ConfigurationError(
            f"{what} as user {uid}, which is the account of {person} on this machine: set {setting} to a number that "
            "no account has (or to this one, if you mean it)"
        )
