"""Which abstract syntaxes the receiver takes objects of.

Derived from the dictionaries of pydicom and pynetdicom. A UID that neither knows is taken: a private
class, or one that is newer than they are.
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
    """Whether objects of this SOP class belong to a series and come by C-STORE.

    Worklists, queries, print and procedure steps do not, nor do objects that belong to no patient
    (hanging protocols, colour palettes, implant templates) or that are for media only (DICOMDIR).
    """
    known = UID(uid)
    if not _WELL_FORMED.fullmatch(uid) or uid == MediaStorageDirectoryStorage:
        return False
    if known.type and known.type != _SOP_CLASS:
        return False
    service = uid_to_service_class(uid)
    if service is not ServiceClass:
        return service is StorageServiceClass
    # Not of pynetdicom: retired ones, and two that the dictionary has without a name.
    return not known.type or not known.name or _STORAGE_NAME.search(known.name) is not None
