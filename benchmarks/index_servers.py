"""What the index on Elasticsearch costs: puts against a bare bulk, facets of a page against the bare query.

Run ``PYTHONPATH=tests python benchmarks/index_servers.py [--sizes 10000,100000] [--url URL]``; without a
URL it starts a server of its own (see ``tests/services``). Prints Markdown. The documents are those of
``index.py``. "Bare bulk" is ``elasticsearch.helpers.bulk`` of the same documents into an index that
Elasticsearch maps by itself. "Bare facets" are the same ten aggregations, by hand, on that index. Both are
forced to be searchable before the clock stops; the cache of answers is off for all queries.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from elasticsearch import Elasticsearch, helpers

sys.path.insert(0, str(Path(__file__).resolve().parent))
from index import FACETS, FILTER, documents, seconds

from kaapana_assets.dicom.attributes import Document
from kaapana_assets.stores.elastic_index import ElasticConnection, ElasticIndex
from kaapana_assets.stores.index.protocol import DateHistogramFacet, HistogramFacet, SortKey
from kaapana_assets.stores.query import parse

BARE_FILTER = {
    "bool": {"filter": [{"term": {"Modality.keyword": "CT"}}, {"range": {"PatientAge": {"gte": 40, "lte": 60}}}]}
}

KEPT = 100_000
TEXT = {"SliceThickness": "SliceThickness"}


def bare_aggregations() -> dict[str, Any]:
    asked: dict[str, Any] = {}
    for facet in FACETS:
        if isinstance(facet, HistogramFacet):
            asked[facet.field] = {"histogram": {"field": facet.field, "interval": facet.interval, "min_doc_count": 1}}
        elif isinstance(facet, DateHistogramFacet):
            steps = {"field": facet.field, "calendar_interval": facet.interval, "min_doc_count": 1}
            asked[facet.field] = {"date_histogram": steps}
        else:
            asked[facet.field] = {"terms": {"field": TEXT.get(facet.field, f"{facet.field}.keyword"), "size": 10}}
    return asked


def bare_bulk(client: Elasticsearch, index: str, made: Iterable[Document]) -> None:
    client.indices.create(
        index=index,
        settings={"number_of_replicas": 0, "requests.cache.enable": False, "mapping.total_fields.limit": 5000},
    )
    helpers.bulk(client, ({"_index": index, "_id": each["SeriesInstanceUID"], "_source": each} for each in made))
    client.indices.refresh(index=index)


def forget(client: Elasticsearch, name: str) -> None:
    client.indices.delete(index=f"{name}-bare")
    client.indices.delete(index=",".join(client.indices.get_alias(name=name)))
    client.indices.delete_index_template(name=name)


def size_of(client: Elasticsearch, index: str) -> str:
    client.indices.flush(index=index)
    return f"{client.indices.stats(index=index)['_all']['primaries']['store']['size_in_bytes'] / 1e6:.0f} MB"


def measure(count: int, url: str, client: Elasticsearch, turns: int) -> list[str]:
    # More than this in memory would cost the server its cache; then both make them while they send.
    kept = list(documents(count)) if count <= KEPT else None

    def made() -> Iterable[Document]:
        return documents(count) if kept is None else kept

    bare_times, put_times = [], []
    # One after the other, and again: the server warms up, and neighbours come and go.
    for turn in range(turns):
        name = f"bench-{uuid.uuid4().hex[:8]}"
        index = ElasticIndex(ElasticConnection(urls=(url,), index=name, replicas=0))
        index.count(FILTER)  # opens it
        client.indices.put_settings(index=name, settings={"index.requests.cache.enable": False})
        put_times.append(seconds(lambda: index.put(made()), repeat=1))  # noqa: B023
        bare_times.append(seconds(lambda: bare_bulk(client, f"{name}-bare", made()), repeat=1))  # noqa: B023
        if turn < turns - 1:
            forget(client, name)
            index.close()
    bare, put = min(bare_times), min(put_times)
    bare_index = f"{name}-bare"
    one = {**next(iter(made())), "SeriesInstanceUID": "1.2.3"}
    everything = parse("*")

    def bare_facets(query: dict[str, Any]) -> object:
        return client.search(
            index=bare_index, size=0, query=query, aggregations=bare_aggregations(), track_total_hits=False
        )

    cells = [f"{count:,}", f"{put:.1f} s", f"{bare:.1f} s", f"{100 * bare / put:.0f} %"]
    cells += [
        f"{seconds(work, repeat=5) * 1000:.1f} ms"
        for work in (
            lambda: index.put([one]),
            lambda: index.count(parse("axial")),
            lambda: index.facets(everything, FACETS),
            lambda: bare_facets({"match_all": {}}),
            lambda: index.facets(FILTER, FACETS),
            lambda: bare_facets(BARE_FILTER),
            lambda: index.search(FILTER, sort=[SortKey("StudyDate", descending=True)], limit=50),
        )
    ]
    start = time.perf_counter()
    assert len(list(index.series(everything))) == count + 1
    cells.append(f"{time.perf_counter() - start:.2f} s")
    cells += [size_of(client, name), size_of(client, bare_index)]
    index.close()
    forget(client, name)
    return cells


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--sizes", default="10000,100000")
    arguments.add_argument("--url", help="of an Elasticsearch that may be written to")
    arguments.add_argument("--turns", type=int, default=3, help="puts and bare bulks, of which the best count")
    given = arguments.parse_args()
    header = ["series", "put all", "bare bulk", "of its speed", "put one more", "count, a word", "10 facets",
              "bare facets", "10 facets, filtered", "bare facets", "page of 50, sorted", "all UIDs",
              "on disk", "bare"]  # fmt: skip
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    with ExitStack() as stack:
        url = given.url
        if url is None:
            from services.elasticsearch import Elasticsearch as Server
            from services.running import Running

            server = Running(Server(), Path(stack.enter_context(tempfile.TemporaryDirectory())))
            stack.callback(server.kill)
            url = server.settings["KAAPANA_ELASTICSEARCH_URLS"]
        # A bare bulk gives up where the index waits until the server has memory again.
        client = Elasticsearch(url, request_timeout=120, retry_on_status=[429, 502, 503, 504], max_retries=50)
        for size in given.sizes.split(","):
            print("| " + " | ".join(measure(int(size), url, client, given.turns)) + " |", flush=True)


if __name__ == "__main__":
    main()
