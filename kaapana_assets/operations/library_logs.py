"""Silences logs of libraries that users of the command line need not see."""

from __future__ import annotations

import logging


def quiet_libraries() -> None:
    """Keep libraries from logging that a server does not answer, because the command reports it."""
    for name in ("pynetdicom", "elastic_transport", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
