"""Directories of a run given to the user that operators run as, where the platform is root."""

from __future__ import annotations

import os
from pathlib import Path


def hand_over(directory: Path, uid: int) -> None:
    """Let a user make files in a directory and all below it; the files in it stay as they are.

    A file that is linked from the archive therefore stays one that the user cannot write. Links are
    not followed: an earlier operator may have put some there. Nothing is done for our own user.

    Raises:
        PermissionError: we are neither that user nor root.
    """
    if uid == os.geteuid():
        return
    for _, _, _, descriptor in os.fwalk(directory, follow_symlinks=False):
        if os.fstat(descriptor).st_uid != uid:
            os.fchown(descriptor, uid, uid)
