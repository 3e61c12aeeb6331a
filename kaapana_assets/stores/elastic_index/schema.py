"""The index template, the alias, and the index of each mapping version.

All requests use the alias ``<index>``, which points to the index ``<index>-v<version>``. Whoever
changes ``MAPPING`` or ``fields`` raises ``MAPPING_VERSION``; ``migration`` then fills a new index
while the old one stays in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elasticsearch import BadRequestError

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.stores.elastic_index.errors import error_type
from kaapana_assets.stores.elastic_index.fields import LOWER_CASE, WORDS_APART

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from kaapana_assets.stores.elastic_index.connection import ElasticConnection

MAPPING_VERSION = 2  # 2: text is composed (NFC)

PARTS = ("text", "number", "date")
_NORMALIZER = "lower_case"
_MAPPERS_PER_FIELD = 4  # text and its sub-field, number, date

_TEMPLATES = [
    {
        "text": {
            "path_match": "text.*",
            "mapping": {
                "type": "keyword",
                "index": False,  # facets read its doc values; queries use the sub-field
                "ignore_above": 1024,
                "fields": {LOWER_CASE: {"type": "keyword", "normalizer": _NORMALIZER, "ignore_above": 1024}},
            },
        }
    },
    {"number": {"path_match": "number.*", "mapping": {"type": "double"}}},
    {"date": {"path_match": "date.*", "mapping": {"type": "date", "format": "strict_date"}}},
]
_FLAT = {"type": "object", "subobjects": False, "dynamic": True}

MAPPING: dict[str, Any] = {
    "_meta": {"version": MAPPING_VERSION},
    "dynamic": False,
    "dynamic_templates": _TEMPLATES,
    "properties": {
        "document": {"type": "object", "enabled": False},
        "uid": {"type": "keyword"},
        "changed": {"type": "date", "format": "epoch_millis"},
        "words": {"type": "text", "analyzer": "whitespace", "norms": False, "position_increment_gap": WORDS_APART},
        "other": {"type": "flattened", "ignore_above": 1024},
        **dict.fromkeys(PARTS, _FLAT),
    },
}


def is_made(client: Elasticsearch, connection: ElasticConnection) -> bool:
    """Whether the index behind the alias exists.

    Raises:
        ConfigurationError: it has another mapping version, or another program made an index of that name.
    """
    alias = connection.index
    if client.indices.exists_alias(name=alias):
        version = served_version(client, alias)
        if version != MAPPING_VERSION:
            raise ConfigurationError(
                f"the metadata index {alias} is of version {version}, this program needs {MAPPING_VERSION}: "
                + ("run `kaapana-assets index migrate`" if version < MAPPING_VERSION else "use a newer program")
            )
        return True
    if client.indices.exists(index=alias):
        raise ConfigurationError(
            f"KAAPANA_ELASTICSEARCH_INDEX={alias} is an index that this program did not make; choose another name"
        )
    return False


def ensure(client: Elasticsearch, connection: ElasticConnection) -> None:
    """Make the template, the index and the alias unless they exist. Several processes may do so at once.

    Raises:
        ConfigurationError: the index has another mapping version, or another program made an index of that name.
    """
    if not is_made(client, connection):
        put_template(client, connection)
        create(client, f"{connection.index}-v{MAPPING_VERSION}", alias=connection.index)


def put_template(client: Elasticsearch, connection: ElasticConnection) -> None:
    """Put the template with the settings and the mapping of every new index of this name."""
    limit = connection.fields * _MAPPERS_PER_FIELD + 1000
    client.indices.put_index_template(
        name=connection.index,
        index_patterns=[f"{connection.index}-v{MAPPING_VERSION}*"],
        version=MAPPING_VERSION,
        priority=500,
        template={
            "settings": {
                "index.number_of_shards": connection.shards,
                "index.number_of_replicas": connection.replicas,
                "index.max_result_window": 10_001,
                "index.mapping.total_fields.limit": limit,
                # Clients may map the last free fields at once; the server must not refuse a document for that.
                "index.mapping.total_fields.ignore_dynamic_beyond_limit": True,
                "index.mapping.ignore_malformed": True,
                "analysis.normalizer": {_NORMALIZER: {"type": "custom", "filter": ["lowercase"]}},
            },
            "mappings": MAPPING,
        },
    )


def create(client: Elasticsearch, index: str, *, alias: str | None) -> None:
    """Create an index from the template unless it exists."""
    try:
        client.indices.create(index=index, aliases={alias: {"is_write_index": True}} if alias else None)
    except BadRequestError as exc:
        if error_type(exc.body) != "resource_already_exists_exception":
            raise


def served_index(client: Elasticsearch, alias: str) -> str:
    """The name of the index behind the alias."""
    return str(next(iter(client.indices.get_alias(name=alias).body)))


def served_version(client: Elasticsearch, alias: str) -> int:
    """The mapping version of the index behind the alias."""
    (found,) = client.indices.get_mapping(index=alias).body.values()
    return int(found["mappings"].get("_meta", {}).get("version", 0))


def mapped_fields(client: Elasticsearch, index: str) -> set[str]:
    """The names of the fields that the index maps with their type."""
    (found,) = client.indices.get_mapping(index=index).body.values()
    properties = found["mappings"]["properties"]
    return {name for part in PARTS for name in properties[part].get("properties", {})}
