"""Validates identifiers from outside before they reach a file system."""

from __future__ import annotations

import re
from typing import NewType

from kaapana_assets.errors import InvalidIdentifier

SeriesInstanceUID = NewType("SeriesInstanceUID", str)

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_NO_PART_OF_A_UID = re.compile(r"[^0-9./\\ -]")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,126}[A-Za-z0-9_-])?")


def checked_uid(value: str, *, keyword: str = "UID") -> str:
    """The UID without padding, safe to use as one path component.

    Only digits and single dots are accepted. Unlike in the standard, a component may begin with zero,
    because archives hold such UIDs.

    Args:
        value: from a dataset or request; trailing NUL and space padding is removed.
        keyword: the DICOM keyword, named in the error.

    Raises:
        InvalidIdentifier: empty, longer than 64 characters, or not made of digits and single dots.

    References:
        PS3.5 9.1 (UID encoding rules), PS3.5 6.2 (VR UI).
    """
    uid = str(value).rstrip("\0 ")
    if len(uid) > 64 or not _UID.fullmatch(uid):
        # The value may be a patient's name, which must not reach logs and quarantine notes with the error.
        shown = _NO_PART_OF_A_UID.sub("?", uid if len(uid) <= 80 else uid[:77] + "...")
        raise InvalidIdentifier(f"{keyword} {shown!r} is not a DICOM UID (1 to 64 digits and single dots)")
    return uid


def is_uid(value: str) -> bool:
    """Whether a text is a UID that ``checked_uid`` accepts, without padding."""
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def checked_name(value: str, *, kind: str) -> str:
    """The name of a cohort, workflow, operator or folder, safe to use as one path component.

    Raises:
        InvalidIdentifier: not 1 to 128 letters, digits, ``_``, ``-`` or ``.`` beginning with a
            letter or digit and not ending with a dot, or holding ``..``.
    """
    if not is_name(value):
        raise InvalidIdentifier(
            f"{kind} {value[:80]!r} is not a valid name: 1 to 128 letters, digits, '_', '-' or '.', "
            "beginning with a letter or digit"
        )
    return value


def is_name(value: str) -> bool:
    """Whether a text is a name that ``checked_name`` accepts."""
    return _NAME.fullmatch(value) is not None and ".." not in value
