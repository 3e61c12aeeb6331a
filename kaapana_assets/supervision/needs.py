"""The table of the secrets that each process of the platform gets: those that it needs, and no others.

Operators are not in the table: they never get any (``containers.contract``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kaapana_assets.withheld import DATABASE_SECRETS, STORE_SECRETS, without_secrets

POSTGRES, CODE, RECEIVER, WEBSERVER, DAEMON = "postgres", "code-server", "receiver", "webserver", "daemon"
HEALTH = "health"
WATCHDOG, ABANDONED_RUNS, MIGRATION, FORGETTING = "watchdog", "abandoned-runs", "migration", "forgetting"


@dataclass(frozen=True)
class Needs:
    """The secrets in the supervisor's environment that a process gets."""

    secrets: frozenset[str] = frozenset()
    others: bool = True
    """Whether it gets other programs' variables that look like secrets, such as those a kubeconfig logs in with."""


NEEDS: Mapping[str, Needs] = {
    POSTGRES: Needs(others=False),
    # It writes data from the network to the spool, and opens no store.
    RECEIVER: Needs(others=False),
    WATCHDOG: Needs(others=False),
    ABANDONED_RUNS: Needs(DATABASE_SECRETS),
    MIGRATION: Needs(DATABASE_SECRETS),
    FORGETTING: Needs(DATABASE_SECRETS | STORE_SECRETS),
    # Both also start and end runs in pods, and their kubeconfig may read credentials from the environment.
    WEBSERVER: Needs(DATABASE_SECRETS),
    DAEMON: Needs(DATABASE_SECRETS),
    HEALTH: Needs(DATABASE_SECRETS | STORE_SECRETS),
    # It starts the runs, which open all stores.
    CODE: Needs(DATABASE_SECRETS | STORE_SECRETS),
}


def given_to(part: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the environment that the process ``part`` gets."""
    needs = NEEDS[part]
    return without_secrets(environment, keep=needs.secrets, keep_others=needs.others)
