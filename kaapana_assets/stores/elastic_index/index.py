"""``ElasticIndex``: the metadata index on an Elasticsearch cluster. It raises only errors of this package."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from elasticsearch import AuthorizationException, NotFoundError

from kaapana_assets.dicom.identifiers import checked_uid
from kaapana_assets.errors import InputError, NotFound, StoreUnavailable
from kaapana_assets.stores.checks import StoreReport
from kaapana_assets.stores.elastic_index import schema
from kaapana_assets.stores.elastic_index.budget import FieldBudget
from kaapana_assets.stores.elastic_index.connection import ElasticConnection
from kaapana_assets.stores.elastic_index.dsl import to_dsl
from kaapana_assets.stores.elastic_index.errors import error_type, translated
from kaapana_assets.stores.elastic_index.expunging import expunge_deletes
from kaapana_assets.stores.elastic_index.facets import aggregations, buckets, order, positions
from kaapana_assets.stores.elastic_index.fields import indexed
from kaapana_assets.stores.elastic_index.writer import BulkWriter, Operation
from kaapana_assets.stores.index.cursors import decoded, encoded
from kaapana_assets.stores.index.protocol import Bucket, Facet, Page, SortKey
from kaapana_assets.stores.query.tree import Query

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from kaapana_assets.dicom.attributes import Document

_LARGEST_PAGE = 10_000
_SNAPSHOT_KEPT = "5m"
_KEPT = ["document"]


class ElasticIndex:
    """A ``MetadataIndex`` on Elasticsearch; safe for several threads and processes.

    Searches see a change as soon as ``put`` or ``delete`` returns. Each call ends with one refresh, so
    one call with many documents costs less than many calls.
    """

    def __init__(self, connection: ElasticConnection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._opened: tuple[int, Elasticsearch] | None = None
        self._budget = FieldBudget(connection.fields, self._mapped_fields)

    @property
    def typed_fields(self) -> int:
        """How many fields are mapped with their type and can have histograms; all others share one field."""
        return self._connection.fields

    def put(self, documents: Iterable[Document]) -> None:
        """See ``MetadataIndex.put``; documents that the server is too busy to take are sent again."""
        self._write(self._putting(document) for document in documents)

    def get(self, series_instance_uid: str) -> Document:
        """See ``MetadataIndex.get``."""
        with translated():
            try:
                found = self._client().get(index=self._connection.index, id=series_instance_uid, source_includes=_KEPT)
            except NotFoundError as exc:
                if error_type(exc.body) == "index_not_found_exception":
                    raise
                raise NotFound(f"series {series_instance_uid} is not in the metadata index") from exc
        return document_of(found.body)

    def delete(self, series_instance_uids: Iterable[str]) -> None:
        """See ``MetadataIndex.delete``."""
        self._write(Operation(uid, None) for uid in series_instance_uids)

    def forget(self, series_instance_uids: Iterable[str]) -> None:
        """See ``MetadataIndex.forget``; rewrites the segments that held the documents.

        Raises:
            ConfigurationError: the user may delete documents but not merge segments.
        """
        self.delete(series_instance_uids)
        with translated():
            expunge_deletes(self._client(), self._connection.index)

    def count(self, query: Query) -> int:
        """See ``MetadataIndex.count``."""
        with translated():
            return int(self._client().count(index=self._connection.index, query=to_dsl(query))["count"])

    def search(self, query: Query, *, sort: Sequence[SortKey] = (), limit: int = 50, after: str | None = None) -> Page:
        """See ``MetadataIndex.search``."""
        if not 1 <= limit <= _LARGEST_PAGE:
            raise InputError(f"a page has 1 to {_LARGEST_PAGE} documents, not {limit}")
        position = None if after is None else decoded(after, sort, values=positions(sort))
        with translated():
            answer = self._client().search(
                index=self._connection.index,
                query=to_dsl(query),
                sort=order(sort),
                search_after=position,
                size=limit + 1,
                track_total_hits=True,
                source_includes=_KEPT,
            )
        found = answer["hits"]["hits"]
        cursor = encoded(sort, found[limit - 1]["sort"]) if len(found) > limit else None
        return Page(tuple(document_of(hit) for hit in found[:limit]), int(answer["hits"]["total"]["value"]), cursor)

    def series(self, query: Query) -> Iterator[str]:
        """See ``MetadataIndex.series``."""
        # All UIDs are read at once (100 bytes each): a snapshot would expire under a slow caller.
        with translated():
            return iter(list(uids(self._client(), self._connection.index, to_dsl(query))))

    def facets(self, query: Query, facets: Sequence[Facet]) -> list[list[Bucket]]:
        """See ``MetadataIndex.facets``; histograms of fields beyond the field limit are empty.

        With several shards, the counts of the rarest of many thousand values are approximate.
        """
        asked = aggregations(facets)
        if not asked:
            return []
        with translated():
            answer = self._client().search(
                index=self._connection.index, query=to_dsl(query), size=0, track_total_hits=False, aggregations=asked
            )
        return buckets(facets, answer["aggregations"])

    def check(self) -> StoreReport:
        """See ``MetadataIndex.check``; opens a new connection, which remembers no earlier failures."""
        client = self._connection.open()
        try:
            with translated():
                version = _server_version(client)
                made = schema.is_made(client, self._connection)
                documents = int(client.count(index=self._connection.index)["count"]) if made else 0
        finally:
            client.close()
        return StoreReport(product="Elasticsearch", version=version, counts={"documents": documents})

    def close(self) -> None:
        """See ``MetadataIndex.close``."""
        with self._lock:
            if self._opened is not None:
                self._opened[1].close()
            self._opened = None

    def _client(self) -> Elasticsearch:
        """A client of a cluster that has the index; a forked process opens its own."""
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                client = self._connection.open()
                schema.ensure(client, self._connection)
                self._opened = (os.getpid(), client)
            return self._opened[1]

    def _write(self, operations: Iterable[Operation]) -> None:
        with translated():
            client = self._client()
        writer = BulkWriter(client, self._connection.index, patience_s=self._connection.patience_s)
        try:
            writer.write(operations)
        except BaseException:
            # Make what was written visible if possible; the caller gets the first error.
            with suppress(StoreUnavailable):
                writer.refresh(patience_s=0)
            raise
        writer.refresh(patience_s=self._connection.patience_s)

    def _putting(self, document: Document) -> Operation:
        return operation(document, self._budget)

    def _mapped_fields(self) -> set[str]:
        with translated():
            return schema.mapped_fields(self._client(), self._connection.index)


def _server_version(client: Elasticsearch) -> str:
    try:
        return str(client.info()["version"]["number"])
    except AuthorizationException:
        return ""  # nothing else needs the privilege `monitor`


def operation(document: Document, budget: FieldBudget) -> Operation:
    """The bulk operation that puts a document.

    Raises:
        InvalidIdentifier: the document has no valid SeriesInstanceUID.
    """
    uid = checked_uid(str(document.get("SeriesInstanceUID", "")), keyword="SeriesInstanceUID")
    changed_ms = time.time_ns() // 1_000_000

    def plain() -> str:
        return indexed(document, uid=uid, changed_ms=changed_ms, unmapped=set)

    return Operation(uid, indexed(document, uid=uid, changed_ms=changed_ms, unmapped=budget.unmapped), plain)


def uids(client: Elasticsearch, index: str, query: dict[str, Any]) -> Iterator[str]:
    """The SeriesInstanceUIDs that match a query, in ascending order, from one snapshot of the index."""
    return (str(hit["sort"][0]) for hit in hits(client, index, query, size=_LARGEST_PAGE, source=False))


def hits(client: Elasticsearch, index: str, query: dict[str, Any], *, size: int, **wanted: Any) -> Iterator[Any]:  # noqa: ANN401
    """All hits of a query in one snapshot of the index, in order of SeriesInstanceUID and without a limit."""
    snapshot = str(client.open_point_in_time(index=index, keep_alive=_SNAPSHOT_KEPT)["id"])
    after: list[Any] | None = None
    try:
        while True:
            answer = client.search(
                query=query,
                pit={"id": snapshot, "keep_alive": _SNAPSHOT_KEPT},
                sort=[{"uid": "asc"}],
                search_after=after,
                size=size,
                track_total_hits=False,
                **wanted,
            )
            snapshot = str(answer["pit_id"])
            found = answer["hits"]["hits"]
            yield from found
            if len(found) < size:
                return
            after = found[-1]["sort"]
    finally:
        client.close_point_in_time(id=snapshot)


def document_of(hit: dict[str, Any]) -> Document:
    """The document in a hit of a search or in the response to a get."""
    document: Document = hit["_source"]["document"]
    return document
