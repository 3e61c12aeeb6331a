"""Rules on paths that decide which files of a home belong in a backup.

A backup holds everything in a home, including what later versions add, except for the paths listed here.
A restore applies the same rules: it refuses a path that no backup holds.
"""

from __future__ import annotations

import os

BULK = ("quarantine", "assets", "objects", "archive")
"""Large trees of write-once files; they are copied last, in this order."""

SPOOL = "incoming"
POSTGRES_DUMP = "dagster/postgres.dump"
"""The path of the dump of the embedded PostgreSQL in a manifest; no such file is in a home."""

_LEFT_OUT = (
    # The record of the running platform: restored, it would make `up` end the processes that it names.
    ("platform.json",),
    ("platform.new",),
    ("platform.lock",),
    # Created anew by a restore: the identity of a home, and the mark of an unfinished restore.
    (".kaapana-home",),
    (".restoring",),
    ("lost+found",),
    # Scratch files, caches, locks and partly written files.
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
    # The files of a running server are not consistent: the server is dumped instead.
    ("dagster", "postgres"),
)
_OF_DATABASES = ("-wal", "-shm", "-journal")
_WITH_DATABASES = ("archive", "archives", "dagster")
_LONGEST = 4096


def is_kept(path: str) -> bool:
    """Whether a path below a home, with ``/``, belongs in a backup."""
    parts = path.split("/")
    if any(_matches(parts, rule) for rule in _LEFT_OUT):
        return False
    if parts[:2] == ["workflows", "data"] and len(parts) > 2 and not parts[2].startswith("."):
        # Run directories are temporary, and a re-execution could take a partial copy for a complete one.
        return False
    base = next((path.removesuffix(end) for end in _OF_DATABASES if path.endswith(end)), "")
    return not (base and is_database(base))


def is_database(path: str) -> bool:
    """Whether a path is a SQLite database of the platform, which may change while it is copied."""
    parts = path.split("/")
    # Only Dagster's databases end with ".db"; others (`Thumbs.db`) need not be SQLite databases.
    if path.endswith(".db"):
        return len(parts) > 1 and parts[0] == "dagster"
    return path.endswith(".sqlite") and (len(parts) == 1 or parts[0] in _WITH_DATABASES)


def is_safe(path: str) -> bool:
    """Whether a path of a manifest is normalized and stays below the home."""
    parts = path.split("/")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # no file can have this name; non-UTF-8 names are surrogate-escaped
        return False
    return len(path) <= _LONGEST and "\0" not in path and not any(part in ("", ".", "..") for part in parts)


def _matches(parts: list[str], rule: tuple[str, ...]) -> bool:
    return len(parts) >= len(rule) and all(want in ("*", part) for part, want in zip(parts, rule, strict=False))
