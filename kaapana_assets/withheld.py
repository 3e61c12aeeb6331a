"""Which variables of the environment are secrets, and environments of processes that do not get them.

A process whose environment has none can neither show them, in a crash or in ``/proc``, nor be talked
out of them. Which part of the platform needs which is in ``supervision.needs``.
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
"""What opens the PACS, the metadata index and the object store."""

DATABASE_SECRETS = frozenset({"KAAPANA_POSTGRES_PASSWORD", "PGPASSWORD", "PGSSLPASSWORD"})
"""What opens Dagster's own storage; the PG names are those of PostgreSQL's library."""

REGISTRY_SECRETS = frozenset({"KAAPANA_IMAGE_PULL_SECRETS"})
"""What opened registries of images, and is still set at some sites: nobody needs it any more."""

SECRETS = STORE_SECRETS | DATABASE_SECRETS | REGISTRY_SECRETS

WITHHELD = "KAAPANA_WITHHELD"
"""Variable that tells a process which settings it was not given, though the platform has them."""

_OTHERS = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE
)


def without_secrets(
    environment: Mapping[str, str], *, keep: Collection[str] = (), keep_others: bool = True
) -> dict[str, str]:
    """The environment without the platform's secrets.

    Args:
        environment: of this process.
        keep: the secrets that stay, of ``SECRETS``.
        keep_others: whether variables of others stay whose names speak of a secret, such as
            ``AWS_SECRET_ACCESS_KEY``: who runs code or tools of the user's needs them.
    """
    withheld = (SECRETS - frozenset(keep)) | _withheld(environment)
    given = {
        name: value
        for name, value in environment.items()
        if name not in withheld and (keep_others or name in SECRETS or not _is_secret_of_others(name))
    }
    return {**given, WITHHELD: ",".join(sorted(withheld))} if withheld else given


def is_withheld(name: str) -> bool:
    """Whether this process was started without the variable ``name`` on purpose."""
    return name in _withheld(os.environ)


def _withheld(environment: Mapping[str, str]) -> frozenset[str]:
    return frozenset(name for name in environment.get(WITHHELD, "").split(",") if name)


def _is_secret_of_others(name: str) -> bool:
    return not name.startswith(("KAAPANA_", "DAGSTER_")) and _OTHERS.search(name) is not None
