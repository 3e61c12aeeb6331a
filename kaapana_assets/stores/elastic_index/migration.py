"""Copies the index of an older mapping version into a new one while the old one stays in use.

Every version has ``document``, ``uid`` and ``changed``; nothing else of the old index is read. The copy
is repeated for documents that changed meanwhile. Writes are blocked only during the last, short
repetition, and writers retry by themselves. Then the alias moves to the new index in one step. An
interrupted migration can be started again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.stores.elastic_index import schema
from kaapana_assets.stores.elastic_index.budget import FieldBudget
from kaapana_assets.stores.elastic_index.errors import translated
from kaapana_assets.stores.elastic_index.index import document_of, hits, operation, uids
from kaapana_assets.stores.elastic_index.writer import BulkWriter, Operation

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from kaapana_assets.stores.elastic_index.connection import ElasticConnection

_CLOCKS_APART_MS = 10 * 60 * 1000
_EVERYTHING: dict[str, Any] = {"match_all": {}}
_READ_TOGETHER = 500


def migrate(connection: ElasticConnection) -> str | None:
    """Migrate the index to this program's mapping version.

    Returns:
        The name of the old index, which stays on the server; None if nothing had to be migrated.

    Raises:
        ConfigurationError: there is no index, or it has a newer mapping version.
        StoreUnavailable: the servers were unavailable for too long; the old index stays in use.
    """
    with translated():
        client = connection.open()
        try:
            return _migrate(client, connection)
        finally:
            client.close()


def _migrate(client: Elasticsearch, connection: ElasticConnection) -> str | None:
    alias = connection.index
    if not client.indices.exists_alias(name=alias):
        raise ConfigurationError(f"there is no metadata index {alias} (KAAPANA_ELASTICSEARCH_INDEX) to migrate")
    old, version = schema.served_index(client, alias), schema.served_version(client, alias)
    if version == schema.MAPPING_VERSION:
        return None
    if version > schema.MAPPING_VERSION:
        raise ConfigurationError(f"the metadata index {alias} is of version {version}: use a newer program")
    new = f"{alias}-v{schema.MAPPING_VERSION}"
    schema.put_template(client, connection)
    schema.create(client, new, alias=None)
    copy = _Copy(client, connection, old=old, new=new)
    copy.run()
    copy.run()
    client.indices.put_settings(index=old, settings={"index.blocks.write": True})
    try:
        copy.run()
        copy.remove_what_is_gone()
        actions: list[dict[str, Any]] = [
            {"remove": {"index": old, "alias": alias}},
            {"add": {"index": new, "alias": alias, "is_write_index": True}},
        ]
        client.indices.update_aliases(actions=actions)
    except BaseException:
        client.indices.put_settings(index=old, settings={"index.blocks.write": False})
        raise
    return old


class _Copy:
    def __init__(self, client: Elasticsearch, connection: ElasticConnection, *, old: str, new: str) -> None:
        self._client = client
        self._old, self._new = old, new
        self._budget = FieldBudget(connection.fields, lambda: schema.mapped_fields(client, new))
        self._writer = BulkWriter(client, new, patience_s=connection.patience_s, is_alias=False)
        self._patience_s = connection.patience_s
        self._since_ms = 0

    def run(self) -> None:
        """Copy the documents put since the last run, with a margin because the clocks of clients differ."""
        since_ms, self._since_ms = self._since_ms, time.time_ns() // 1_000_000 - _CLOCKS_APART_MS
        self._client.indices.refresh(index=self._old)
        self._writer.write(self._changed(since_ms))
        self._writer.refresh(patience_s=self._patience_s)

    def remove_what_is_gone(self) -> None:
        """Remove documents that were deleted after they were copied; writes to the old index are blocked by then."""
        kept = set(uids(self._client, self._old, _EVERYTHING))
        copied = uids(self._client, self._new, _EVERYTHING)
        self._writer.write(Operation(uid, None) for uid in copied if uid not in kept)
        self._writer.refresh(patience_s=self._patience_s)

    def _changed(self, since_ms: int) -> Iterator[Operation]:
        query = {"range": {"changed": {"gte": since_ms}}}
        for hit in hits(self._client, self._old, query, size=_READ_TOGETHER, source_includes=["document"]):
            yield operation(document_of(hit), self._budget)
