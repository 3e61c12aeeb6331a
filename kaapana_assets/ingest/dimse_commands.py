"""Decodes the command sets of DIMSE requests without trusting them, and encodes the responses.

References:
    PS3.7 6.3 (command set), 9.3 (messages), Annex C (status), Annex E (fields).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from kaapana_assets.errors import InputError

C_STORE_RQ = 0x0001
C_ECHO_RQ = 0x0030
COMMAND_LIMIT_BYTES = 64 * 1024

_C_CANCEL_RQ = 0x0FFF
_RESPONSE = 0x8000
_NO_DATASET = 0x0101
_AFFECTED_CLASS, _REQUESTED_CLASS, _AFFECTED_INSTANCE, _REQUESTED_INSTANCE = 0x0002, 0x0003, 0x1000, 0x1001
_FIELD, _MESSAGE_ID, _RESPONDED_TO, _DATASET_TYPE, _STATUS = 0x0100, 0x0110, 0x0120, 0x0800, 0x0900


class ProtocolViolation(InputError):
    """The peer violates the protocol; its association is aborted."""


@dataclass(frozen=True)
class Command:
    """The command set of a request; its UIDs are stripped of padding but not validated."""

    field: int
    message_id: int
    has_dataset: bool
    sop_class_uid: str
    sop_instance_uid: str


def read_command(data: bytes) -> Command:
    """Decode the command set of a request.

    Args:
        data: all its fragments, joined.

    Raises:
        ProtocolViolation: it cannot be decoded, lacks command field, message ID or data set type, or
            is a response or a C-CANCEL.
    """
    elements = _elements(data)
    field = _number(elements, _FIELD, "command field")
    if field & _RESPONSE or field == _C_CANCEL_RQ:
        kind = "a C-CANCEL" if field == _C_CANCEL_RQ else f"response 0x{field:04X}"
        raise ProtocolViolation(f"{kind} to a request that was never made")
    return Command(
        field=field,
        message_id=_number(elements, _MESSAGE_ID, "message ID"),
        has_dataset=_number(elements, _DATASET_TYPE, "data set type") != _NO_DATASET,
        sop_class_uid=_text(elements, _AFFECTED_CLASS, _REQUESTED_CLASS),
        sop_instance_uid=_text(elements, _AFFECTED_INSTANCE, _REQUESTED_INSTANCE),
    )


def response_to(command: Command, status: int) -> bytes:
    """The encoded command set of the response to a request."""
    elements = _element(_AFFECTED_CLASS, _uid(command.sop_class_uid)) if command.sop_class_uid else b""
    elements += _element(_FIELD, struct.pack("<H", command.field | _RESPONSE))
    elements += _element(_RESPONDED_TO, struct.pack("<H", command.message_id))
    elements += _element(_DATASET_TYPE, struct.pack("<H", _NO_DATASET))
    elements += _element(_STATUS, struct.pack("<H", status))
    if command.sop_instance_uid:
        elements += _element(_AFFECTED_INSTANCE, _uid(command.sop_instance_uid))
    return _element(0x0000, struct.pack("<L", len(elements))) + elements


def _elements(data: bytes) -> dict[int, bytes]:
    """Values by element number, from group 0000 in implicit VR little endian (PS3.7 6.3.1)."""
    found = {}
    offset = 0
    while offset < len(data):
        if offset + 8 > len(data):
            raise ProtocolViolation("a command set ends within an element")
        group, number, length = struct.unpack_from("<HHL", data, offset)
        offset += 8
        if group != 0 or length > len(data) - offset:
            raise ProtocolViolation(f"element ({group:04X},{number:04X}) of {length} bytes in a command set")
        found[number] = data[offset : offset + length]
        offset += length
    return found


def _number(elements: dict[int, bytes], number: int, name: str) -> int:
    value = elements.get(number, b"")
    if len(value) != 2:
        raise ProtocolViolation(f"a command set without {name}")
    return int.from_bytes(value, "little")


def _text(elements: dict[int, bytes], *numbers: int) -> str:
    values = (elements.get(number, b"").decode("ascii", "replace").rstrip("\0 ") for number in numbers)
    return next((value for value in values if value), "")


def _uid(value: str) -> bytes:
    # Returned as received, but truncated so that a response fits into any PDU.
    encoded = value.encode("ascii", "replace")[:64]
    return encoded + b"\0" * (len(encoded) % 2)


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(value)) + value
