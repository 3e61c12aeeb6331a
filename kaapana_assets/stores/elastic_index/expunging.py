"""Deleted documents removed from the segments of an index, where they stay otherwise until a merge."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

_TIMEOUT_S = 3600.0
_ALLOWED = "index.merge.policy.expunge_deletes_allowed"


def expunge_deletes(client: Elasticsearch, index: str) -> None:
    """Write all segments with deleted documents anew, and the transaction log, which holds documents, too.

    Raises:
        ApiError: the server refuses it, for example for want of the privilege ``manage``.
        TransportError: the server does not answer, or needs more than an hour.
    """
    # Left as it is, segments with fewer than 10 % deleted documents are passed over.
    client.indices.put_settings(index=index, settings={_ALLOWED: 0})
    patient = client.options(request_timeout=_TIMEOUT_S)
    patient.indices.flush(index=index, force=True, wait_if_ongoing=True)
    patient.indices.forcemerge(index=index, only_expunge_deletes=True)
    patient.indices.flush(index=index, force=True, wait_if_ongoing=True)
