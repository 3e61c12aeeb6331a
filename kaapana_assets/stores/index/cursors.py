"""Cursors: text that says where a page of a search ended, made of the sort and the values of the last row."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Sequence

from kaapana_assets.errors import InputError
from kaapana_assets.stores.index.protocol import SortKey
from kaapana_assets.stores.index.values import Value


def encoded(sort: Sequence[SortKey], position: Sequence[Value | None]) -> str:
    """The cursor of the page that follows a row."""
    state = [[[key.field, key.descending] for key in sort], list(position)]
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(state).encode())).decode("ascii")


def decoded(cursor: str, sort: Sequence[SortKey], *, values: int) -> list[Value | None]:
    """The values of the row that a cursor stands for; ``values`` says how many a row has in this sort.

    Raises:
        InputError: the text is no cursor, or a cursor of another sort.
    """
    try:
        keys, position = json.loads(zlib.decompress(base64.urlsafe_b64decode(cursor)))
    except (ValueError, TypeError, zlib.error, binascii.Error) as exc:
        raise InputError("the cursor is not one that a search gave") from exc
    if keys != [[key.field, key.descending] for key in sort] or len(position) != values:
        raise InputError("the cursor is of a search with another sort")
    return list(position)
