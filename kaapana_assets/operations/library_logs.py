"""Logs of libraries that a user of the command line need not see."""

from __future__ import annotations

import logging


def quiet_libraries() -> None:
    """Keep libraries from logging that a server does not answer: the command says so itself."""
    for name in ("pynetdicom", "elastic_transport", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
