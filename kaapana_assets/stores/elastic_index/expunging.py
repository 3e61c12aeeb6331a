"""Removes deleted documents from the segments of an index, where they would stay until a merge."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

_TIMEOUT_S = 3600.0
_ALLOWED = "index.merge.policy.expunge_deletes_allowed"


def expunge_deletes(client: Elasticsearch, index: str) -> None:
    """Rewrite all segments that hold deleted documents, and flush the transaction log, which holds documents too.

    Raises:
        ApiError: the server refuses it, for example because the user lacks the privilege ``manage``.
        TransportError: the server does not answer, or needs more than an hour.
    """
    # By default, the server skips segments with fewer than 10 % deleted documents.
    client.indices.put_settings(index=index, settings={_ALLOWED: 0})
    patient = client.options(request_timeout=_TIMEOUT_S)
    patient.indices.flush(index=index, force=True, wait_if_ongoing=True)
    patient.indices.forcemerge(index=index, only_expunge_deletes=True)
    patient.indices.flush(index=index, force=True, wait_if_ongoing=True)
