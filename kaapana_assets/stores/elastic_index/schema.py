"""The index template, the alias, and the indices of each version of the mapping.

All work goes through the alias ``<index>``; what it points to is named ``<index>-v<version>``. What
changes ``MAPPING`` or ``fields`` raises ``MAPPING_VERSION``; ``migration`` then fills a new index
while the old one serves.
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
                "index": False,  # facets read it in columns; what is looked for is in lower case
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
    """Whether the index that the alias stands for is there, and of this program.

    Raises:
        ConfigurationError: it is of another version of this program, or another's.
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
    """Make what is not there yet: the template, an index and the alias. Several may do it at once.

    Raises:
        ConfigurationError: the alias stands for an index of another version of this program.
    """
    if not is_made(client, connection):
        put_template(client, connection)
        create(client, f"{connection.index}-v{MAPPING_VERSION}", alias=connection.index)


def put_template(client: Elasticsearch, connection: ElasticConnection) -> None:
    """The settings and the mapping that every new index of this name gets."""
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
                # Clients that fill the last places at once must not make the server refuse a document.
                "index.mapping.total_fields.ignore_dynamic_beyond_limit": True,
                "index.mapping.ignore_malformed": True,
                "analysis.normalizer": {_NORMALIZER: {"type": "custom", "filter": ["lowercase"]}},
            },
            "mappings": MAPPING,
        },
    )


def create(client: Elasticsearch, index: str, *, alias: str | None) -> None:
    """An index from the template, unless it is there."""
    try:
        client.indices.create(index=index, aliases={alias: {"is_write_index": True}} if alias else None)
    except BadRequestError as exc:
        if error_type(exc.body) != "resource_already_exists_exception":
            raise


def served_index(client: Elasticsearch, alias: str) -> str:
    """The name of the index that the alias stands for."""
    return str(next(iter(client.indices.get_alias(name=alias).body)))


def served_version(client: Elasticsearch, alias: str) -> int:
    """The version of the mapping of the index that the alias stands for."""
    (found,) = client.indices.get_mapping(index=alias).body.values()
    return int(found["mappings"].get("_meta", {}).get("version", 0))


def mapped_fields(client: Elasticsearch, index: str) -> set[str]:
    """The names of fields that the index searches with their type."""
    (found,) = client.indices.get_mapping(index=index).body.values()
    properties = found["mappings"]["properties"]
    return {name for part in PARTS for name in properties[part].get("properties", {})}
