"""Names the secrets among environment variables, and removes them from the environments of child processes.

A process without secrets in its environment cannot reveal them: not in a crash, not in ``/proc``, and not to an
attacker. ``supervision.needs`` says which part of the platform needs which secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping

STORE_SECRETS = frozenset(
    {
        "KAAPANA_ELASTICSEARCH_API_KEY",
        "KAAPANA_ELASTICSEARCH_PASSWORD",
        "KAAPANA_S3_ACCESS_KEY",
        "KAAPANA_S3_SECRET_KEY",
        "KAAPANA_DICOMWEB_PASSWORD",
        "KAAPANA_DICOMWEB_TOKEN",
    }
)
"""The secrets of the PACS, the metadata index and the object store."""

DATABASE_SECRETS = frozenset({"KAAPANA_POSTGRES_PASSWORD", "PGPASSWORD", "PGSSLPASSWORD"})
"""The secrets of Dagster's storage; libpq reads those whose names begin with PG."""

REGISTRY_SECRETS = frozenset({"KAAPANA_IMAGE_PULL_SECRETS"})
"""The secrets of image registries: no longer used, but still set at some sites."""

SECRETS = STORE_SECRETS | DATABASE_SECRETS | REGISTRY_SECRETS

WITHHELD = "KAAPANA_WITHHELD"
"""The variable that tells a process which secrets were withheld from it."""

_OTHERS = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE
)


def without_secrets(
    environment: Mapping[str, str], *, keep: Collection[str] = (), keep_others: bool = True
) -> dict[str, str]:
    """Return the environment without the platform's secrets.

    Args:
        environment: the environment of this process.
        keep: the members of ``SECRETS`` to keep.
        keep_others: keep variables of other programs that look like secrets, such as ``AWS_SECRET_ACCESS_KEY``;
            a process that runs the user's code or tools needs them.
    """
    withheld = (SECRETS - frozenset(keep)) | _withheld(environment)
    given = {
        name: value
        for name, value in environment.items()
        if name not in withheld and (keep_others or name in SECRETS or not _is_secret_of_others(name))
    }
    return {**given, WITHHELD: ",".join(sorted(withheld))} if withheld else given


def is_withheld(name: str) -> bool:
    """Whether the variable ``name`` was withheld from this process."""
    return name in _withheld(os.environ)


def _withheld(environment: Mapping[str, str]) -> frozenset[str]:
    return frozenset(name for name in environment.get(WITHHELD, "").split(",") if name)


def _is_secret_of_others(name: str) -> bool:
    return not name.startswith(("KAAPANA_", "DAGSTER_")) and _OTHERS.search(name) is not None
