"""The statuses with which an archive refuses an instance, by C-STORE or STOW.

References: PS3.4 B.2.3 (C-STORE status), PS3.18 I.2 (Failure Reason of STOW).
"""

from __future__ import annotations

from enum import Enum

_TEXTS = {
    0x0110: "processing failure",
    0x0111: "it has an instance of this UID already",
    0x0122: "SOP class not supported",
    0x0124: "not authorized",
    0x0272: "transfer syntax not supported",
    0xA700: "out of resources: send it again later",
    0xA900: "the dataset does not match its SOP class",
    0xC000: "it cannot understand the object",
}


class Refusal(Enum):
    """The meaning of a refusal for the sender."""

    BUSY = "the archive lacks room or memory: later"
    DUPLICATE = "it has an instance of this UID"
    NOT_ALLOWED = "the user may not store"
    UNFIT = "it will never take this file"
    UNKNOWN = "it may be the file or the archive"


def status_text(status: int) -> str:
    """A status in words; empty for an unknown one."""
    return _TEXTS.get(status) or _TEXTS.get(status & 0xFF00) or _TEXTS.get(status & 0xF000, "")


def is_stored(status: int) -> bool:
    """Whether an instance with this status was stored: success, or a warning."""
    return status == 0x0000 or status & 0xF000 == 0xB000


def refusal(status: int | None) -> Refusal:
    """The meaning of a status other than success or a warning; None stands for a refusal without a status."""
    if status is None or status == 0x0110:
        return Refusal.UNKNOWN
    if status & 0xFF00 == 0xA700:
        return Refusal.BUSY
    return {0x0111: Refusal.DUPLICATE, 0x0124: Refusal.NOT_ALLOWED}.get(status, Refusal.UNFIT)
