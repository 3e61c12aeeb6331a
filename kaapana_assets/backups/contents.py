"""Which files of a home belong into a backup, by rules on their paths.

All of a home belongs there, also what a later version adds, but for what is named here. A restore
keeps to the same rules: a backup cannot bring a file that no backup holds.
"""

from __future__ import annotations

import os

BULK = ("quarantine", "assets", "objects", "archive")
"""Large trees of files that are written once, copied last and in this order."""

SPOOL = "incoming"
POSTGRES_DUMP = "dagster/postgres.dump"
"""The place of the embedded PostgreSQL in a manifest; no file of a home."""

_LEFT_OUT = (
    # Of the process that runs now: a restored record would make `up` end processes that it names.
    ("platform.json",),
    ("platform.new",),
    ("platform.lock",),
    # Made anew by a restore: it is part of what tells one home from another.
    (".kaapana-home",),
    (".restoring",),
    ("lost+found",),
    # Scratch, caches, locks and what is half written.
    ("scratch",),
    ("logs",),
    ("index-rebuild.txt",),
    ("incoming", ".tmp"),
    ("incoming", ".associations"),
    ("incoming", ".taker"),
    ("archive", ".tmp"),
    ("archive", ".lock"),
    ("archives", "*", "series"),
    ("archives", "*", ".tmp"),
    ("quarantine", ".tmp"),
    ("assets", ".staging"),
    ("objects", ".incoming"),
    # Files of a running server are no copy of it: it is dumped.
    ("dagster", "postgres"),
)
_OF_DATABASES = ("-wal", "-shm", "-journal")
_WITH_DATABASES = ("archive", "archives", "dagster")
_LONGEST = 4096


def is_kept(path: str) -> bool:
    """Whether a path below a home, with ``/``, belongs into a backup."""
    parts = path.split("/")
    if any(_matches(parts, rule) for rule in _LEFT_OUT):
        return False
    if parts[:2] == ["workflows", "data"] and len(parts) > 2 and not parts[2].startswith("."):
        # A run directory is temporary, and half of one would look like a whole one to a re-execution.
        return False
    base = next((path.removesuffix(end) for end in _OF_DATABASES if path.endswith(end)), "")
    return not (base and is_database(base))


def is_database(path: str) -> bool:
    """Whether a file is a SQLite database of the platform's own, which may be written to meanwhile."""
    parts = path.split("/")
    # Only Dagster's end with ".db"; elsewhere one is of others (`Thumbs.db`), and may be no database at all.
    if path.endswith(".db"):
        return len(parts) > 1 and parts[0] == "dagster"
    return path.endswith(".sqlite") and (len(parts) == 1 or parts[0] in _WITH_DATABASES)


def is_safe(path: str) -> bool:
    """Whether a path of a manifest is one below a home, in its only spelling."""
    parts = path.split("/")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # the name of no file, unlike bytes that are no UTF-8
        return False
    return len(path) <= _LONGEST and "\0" not in path and not any(part in ("", ".", "..") for part in parts)


def _matches(parts: list[str], rule: tuple[str, ...]) -> bool:
    return len(parts) >= len(rule) and all(want in ("*", part) for part, want in zip(parts, rule, strict=False))
