"""The metadata index on Elasticsearch 8.19 and newer or 9, for sites with servers.

It answers as the embedded index does, because what is searched is made here (``fields``) and not by
the server's analysis: the server holds keywords, numbers, dates and words that were cut in Python.
"""

from kaapana_assets.stores.elastic_index.connection import ElasticConnection
from kaapana_assets.stores.elastic_index.index import ElasticIndex

__all__ = ["ElasticConnection", "ElasticIndex"]
