"""Which secrets each process of the platform is started with: those that it needs, and no others.

Operators are not in the table: they get none, whatever starts them (``containers.contract``).
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
    """What of the supervisor's environment a process gets."""

    secrets: frozenset[str] = frozenset()
    others: bool = True
    """Variables of others that look like secrets, such as those with which a kubeconfig logs in."""


NEEDS: Mapping[str, Needs] = {
    POSTGRES: Needs(others=False),
    # What takes data from the network writes them to the spool, and opens no store.
    RECEIVER: Needs(others=False),
    WATCHDOG: Needs(others=False),
    ABANDONED_RUNS: Needs(DATABASE_SECRETS),
    MIGRATION: Needs(DATABASE_SECRETS),
    FORGETTING: Needs(DATABASE_SECRETS | STORE_SECRETS),
    # Both also end and start runs in pods, for which a kubeconfig may ask the environment.
    WEBSERVER: Needs(DATABASE_SECRETS),
    DAEMON: Needs(DATABASE_SECRETS),
    HEALTH: Needs(DATABASE_SECRETS | STORE_SECRETS),
    # It starts the runs, which ingest, query and store results.
    CODE: Needs(DATABASE_SECRETS | STORE_SECRETS),
}


def given_to(part: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What the process ``part`` gets of the environment."""
    needs = NEEDS[part]
    return without_secrets(environment, keep=needs.secrets, keep_others=needs.others)
