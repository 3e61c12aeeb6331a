"""The metadata index on Elasticsearch 8.19 and newer or 9, for sites with servers.

It gives the same answers as the embedded index, because this package and not the server's analyzers
decides what is searchable (``fields``): the server gets keywords, numbers, dates and words that were
split in Python.
"""

from kaapana_assets.stores.elastic_index.connection import ElasticConnection
from kaapana_assets.stores.elastic_index.index import ElasticIndex

__all__ = ["ElasticConnection", "ElasticIndex"]
