"""Parses the addresses of servers and refuses those that hold a password. Connects to nothing."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import SplitResult, parse_qsl, urlsplit

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9][a-z0-9._-]{0,252})(?::([0-9]{1,5}))?")


def authority(text: str) -> tuple[str, int | None]:
    """Return the host and the port of ``host`` or ``host:port``; the host in lower case, IPv6 in brackets.

    Raises:
        ValueError: the text has neither form.
    """
    found = _AUTHORITY.fullmatch(text.lower())
    if found is None or (found[2] and int(found[2]) > 65535):
        raise ValueError("is not host or host:port, such as pacs.example or pacs.example:8443")
    return found[1], int(found[2]) if found[2] else None


def bracketed(host: str) -> str:
    """Return the host as a URL spells it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def split_address(url: str, *, example: str, schemes: Collection[str], instead: str) -> SplitResult:
    """Split an address that names no user and has no parameters.

    Args:
        url: the address; no error repeats any part of it, since it may hold a password by mistake.
        example: a valid address, for the error.
        schemes: the accepted schemes.
        instead: tells the user where the user name and password belong.

    Raises:
        ValueError: the address is not valid, names a user or has parameters.
    """
    # The whole text is searched: urlsplit reads "user:pa/ss@host" as the host "user" and the port "pa".
    if "@" in url:
        raise ValueError(f"names a user: {instead}")
    found = _split(url, example)
    if found.scheme not in schemes or not found.hostname or found.query or found.fragment:
        raise ValueError(f"is not an address like {example}, without parameters")
    return found


def split_database_address(url: str, *, example: str, schemes: Collection[str], instead: str) -> SplitResult:
    """Split the address of a database, which may name a user and have parameters, but holds no password.

    Raises:
        ValueError: the address is not valid or holds a password; see ``split_address``.
    """
    user, at, _ = url.partition("://")[2].partition("?")[0].rpartition("@")
    if at and ":" in user:
        raise ValueError(f"has a password: {instead}")
    found = _split(url, example)
    if any("password" in name.lower() for name, _ in parse_qsl(found.query, keep_blank_values=True)):
        raise ValueError(f"has a password: {instead}")
    # urlsplit reads "user:1/a?b@host/db" as the host "user", and the end of the password as a parameter.
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
        # Python's own message repeats the part of the address that it could not parse.
        raise ValueError(f"is not an address like {example}") from None
    return found
