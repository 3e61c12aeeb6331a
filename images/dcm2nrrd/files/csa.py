"""Siemens' CSA headers: named texts in a private element of the object."""

import struct

from attributes import private_tag
from pydicom.dataset import Dataset
from refusal import Refused

NAME = 64
BEFORE_ITEMS = 84  # name, multiplicity, VR, syngo data type, number of items, one more
MOST = 4096


def csa_of(ds: Dataset) -> dict[str, list[str]]:
    """The values of an object's CSA image header by name; empty if it has none.

    Raises:
        Refused: the header is damaged.
    """
    tag = private_tag(ds, 0x0029, "SIEMENS CSA HEADER", 0x10)
    if tag is None or tag not in ds:
        return {}
    data = ds.get_item(tag).value
    if not isinstance(data, bytes) or len(data) < 16:
        return {}
    try:
        return _parsed(data)
    except struct.error as exc:
        raise Refused("its CSA header is damaged") from exc


def _parsed(data: bytes) -> dict[str, list[str]]:
    newer = data.startswith(b"SV10")
    at = 8 if newer else 0
    (count,) = struct.unpack_from("<L", data, at)
    at += 8
    found: dict[str, list[str]] = {}
    unit = None
    for _ in range(count if count <= MOST else 0):
        name = _text(data[at : at + NAME])
        items = struct.unpack_from("<L", data, at + 76)[0]
        at += BEFORE_ITEMS
        unit = items if unit is None else unit
        values = []
        for _ in range(items if items <= MOST else 0):
            lengths = struct.unpack_from("<4L", data, at)
            at += 16
            # The older form adds the first element's number of items to each length.
            length = lengths[1] if newer else lengths[0] - unit
            if not 0 <= length <= len(data) - at:
                break
            values.append(_text(data[at : at + length]))
            at += (length + 3) // 4 * 4
        found[name] = [value for value in values if value]
    return found


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("latin-1").strip()
