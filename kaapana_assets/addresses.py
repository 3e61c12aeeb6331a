"""Addresses of servers as text: host and port, and that no password is in them. Connects to nothing."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import SplitResult, parse_qsl, urlsplit

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9][a-z0-9._-]{0,252})(?::([0-9]{1,5}))?")


def authority(text: str) -> tuple[str, int | None]:
    """Host, in lower case and IPv6 in brackets, and port of ``host`` or ``host:port``.

    Raises:
        ValueError: it is neither.
    """
    found = _AUTHORITY.fullmatch(text.lower())
    if found is None or (found[2] and int(found[2]) > 65535):
        raise ValueError("is not host or host:port, such as pacs.example or pacs.example:8443")
    return found[1], int(found[2]) if found[2] else None


def bracketed(host: str) -> str:
    """The host as it stands in an address: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def split_address(url: str, *, example: str, schemes: Collection[str], instead: str) -> SplitResult:
    """The parts of an address that names no user and has no parameters.

    Args:
        url: the address; no part of it is in an error, since it may hold a password by mistake.
        example: an address as it should be.
        schemes: those that are taken.
        instead: what to do with a user and password.

    Raises:
        ValueError: it is no such address.
    """
    # Looked for in all of it: "user:pa/ss@host" has "user" for a host and "pa" for a port.
    if "@" in url:
        raise ValueError(f"names a user: {instead}")
    found = _split(url, example)
    if found.scheme not in schemes or not found.hostname or found.query or found.fragment:
        raise ValueError(f"is not an address like {example}, without parameters")
    return found


def split_database_address(url: str, *, example: str, schemes: Collection[str], instead: str) -> SplitResult:
    """The parts of an address of a database, which may name a user and have parameters, but no password.

    Raises:
        ValueError: it is no such address; see ``split_address``.
    """
    user, at, _ = url.partition("://")[2].partition("?")[0].rpartition("@")
    if at and ":" in user:
        raise ValueError(f"has a password: {instead}")
    found = _split(url, example)
    if any("password" in name.lower() for name, _ in parse_qsl(found.query, keep_blank_values=True)):
        raise ValueError(f"has a password: {instead}")
    # "user:1/a?b@host/db" has "user" for a host, and the end of a password for a parameter.
    if "/" in found.query.partition("@")[2]:
        raise ValueError(f"is not {example}")
    if found.scheme not in schemes or not found.hostname or found.path in ("", "/") or found.fragment:
        raise ValueError(f"is not {example}")
    return found


def _split(url: str, example: str) -> SplitResult:
    try:
        found = urlsplit(url)
        _ = found.port
    except ValueError:
        # Python's own message has the part of the address that it did not understand.
        raise ValueError(f"is not an address like {example}") from None
    return found
