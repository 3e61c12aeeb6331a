"""Decides which abstract syntaxes are storage classes that the receiver accepts.

The dictionaries of pydicom and pynetdicom decide. A UID that neither of them knows is accepted: it is a
private class, or newer than they are.
"""

from __future__ import annotations

import re
from functools import lru_cache

from pydicom.uid import UID, MediaStorageDirectoryStorage
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

_SOP_CLASS = "SOP Class"
_STORAGE_NAME = re.compile(r"\bStorage\b(?! Commitment)")
_WELL_FORMED = re.compile(r"[0-9.]{1,64}")


@lru_cache(maxsize=4096)
def is_storage_class(uid: str) -> bool:
    """Whether C-STORE transfers objects of this SOP class and they belong to a series.

    Worklists, queries, print and procedure steps are not storage classes. Objects without a patient
    (hanging protocols, colour palettes, implant templates) and DICOMDIR belong to no series.
    """
    known = UID(uid)
    if not _WELL_FORMED.fullmatch(uid) or uid == MediaStorageDirectoryStorage:
        return False
    if known.type and known.type != _SOP_CLASS:
        return False
    service = uid_to_service_class(uid)
    if service is not ServiceClass:
        return service is StorageServiceClass
    # Unknown to pynetdicom: retired classes, and two that the dictionary lists without a name.
    return not known.type or not known.name or _STORAGE_NAME.search(known.name) is not None
