"""A change of the mapping: the old index serves until the new one has everything, then the alias changes over."""

import threading
import uuid

import pytest

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.stores.elastic_index import ElasticConnection, ElasticIndex, schema
from kaapana_assets.stores.elastic_index.budget import FieldBudget
from kaapana_assets.stores.elastic_index.index import operation
from kaapana_assets.stores.elastic_index.migration import migrate
from kaapana_assets.stores.elastic_index.writer import BulkWriter, Operation
from kaapana_assets.stores.query import All, parse

pytestmark = pytest.mark.services


@pytest.fixture
def connection(elasticsearch_server):
    url = elasticsearch_server.settings["KAAPANA_ELASTICSEARCH_URLS"]
    return ElasticConnection(urls=(url,), index=f"test-{uuid.uuid4().hex}", replicas=0)


@pytest.fixture
def client(connection):
    with connection.open() as client:
        yield client


@pytest.fixture
def old(connection, client):
    """An index as a version before the first one would have made it, behind the alias."""
    name = f"{connection.index}-v0"
    normalizer = {"lower_case": {"type": "custom", "filter": ["lowercase"]}}
    client.indices.create(
        index=name,
        settings={"number_of_replicas": 0, "analysis": {"normalizer": normalizer}},
        mappings={**schema.MAPPING, "_meta": {"version": 0}},
        aliases={connection.index: {"is_write_index": True}},
    )
    return name


def document(number):
    return {"SeriesInstanceUID": f"1.2.{number}", "Modality": "MR", "Number": number}


def test_index_of_an_older_version_is_refused_and_says_what_to_do(connection, old):
    with pytest.raises(ConfigurationError, match="index migrate"):
        ElasticIndex(connection).count(All())


def test_nothing_is_lost_while_clients_go_on_writing(connection, client, old):
    writer = BulkWriter(client, connection.index, patience_s=60)
    budget = FieldBudget(2000, set)
    writer.write(operation(document(number), budget) for number in range(2000))
    writer.write([Operation("1.2.5", None)])
    begun, over, written = threading.Event(), threading.Event(), []

    def write():
        number = 2000
        while not over.is_set():
            writer.write([operation(document(number), budget), Operation(f"1.2.{number - 1000}", None)])
            written.append(number)
            number += 1
            begun.set()

    writing = threading.Thread(target=write)
    writing.start()
    assert begun.wait(60)
    try:
        assert migrate(connection) == old
    finally:
        over.set()
        writing.join()
    index = ElasticIndex(connection)
    index.put([document(99999)])
    gone = {5, *(number - 1000 for number in written)}
    expected = {f"1.2.{number}" for number in [*range(2000), *written, 99999] if number not in gone}
    assert set(index.series(All())) == expected
    assert index.count(parse("Number:[0 TO 9]")) == 9
    assert migrate(connection) is None
    index.close()


def test_there_must_be_something_to_migrate(connection):
    with pytest.raises(ConfigurationError, match="KAAPANA_ELASTICSEARCH_INDEX"):
        migrate(connection)
