"""The connection to Elasticsearch: addresses, credentials, TLS and timeouts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.stores.elastic_index.errors import WORTH_ANOTHER_TRY

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch


@dataclass(frozen=True, kw_only=True)
class ElasticConnection:
    """One cluster, the credentials for it, and the settings of the index on it.

    Attributes:
        urls: addresses of one or more nodes of the cluster.
        api_key: in Elasticsearch's encoded form; or ``user`` and ``password``; or no credentials.
        ca_file: CA certificates that the servers' certificates are verified with, instead of the usual ones.
        fingerprint: SHA-256 of the CA certificate, hexadecimal; used instead of ``ca_file``.
        timeout_s: timeout of one request, in seconds.
        patience_s: seconds for which a write is retried while the servers are unavailable or too busy.
        index: name of the alias, and prefix of the names of everything that is made on the server.
        shards: number of shards of a new index.
        replicas: number of replicas of a new index.
        fields: how many different fields are mapped with their type; the others go into ``other``.
    """

    urls: tuple[str, ...]
    api_key: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    fingerprint: str = ""
    timeout_s: float = 30.0
    patience_s: float = 120.0
    index: str = "kaapana-series"
    shards: int = 1
    replicas: int = 1
    fields: int = 2000

    def open(self) -> Elasticsearch:
        """A client that has sent nothing yet. Threads may share it; a forked process must not use it.

        Raises:
            ConfigurationError: the client cannot use the addresses or the TLS settings.
        """
        from elastic_transport import Transport
        from elasticsearch import Elasticsearch

        class PlainTransport(Transport):
            """Removes the API version from request headers, so that servers of 8.19 accept a client of 9."""

            def perform_request(self, method: str, target: str, **given: Any) -> Any:  # noqa: ANN401
                headers = given.get("headers")
                if headers:
                    given["headers"] = {name: _plain(value) for name, value in headers.items()}
                return super().perform_request(method, target, **given)

        try:
            return Elasticsearch(
                list(self.urls),
                transport_class=PlainTransport,
                retry_on_timeout=False,
                retry_on_status=sorted(WORTH_ANOTHER_TRY),
                max_retries=3,
                request_timeout=self.timeout_s,
                http_compress=False,
                **self._credentials(),
                **self._tls(),
            )
        except (ValueError, OSError) as exc:
            raise ConfigurationError(f"KAAPANA_ELASTICSEARCH_*: {exc}") from exc

    def _credentials(self) -> dict[str, Any]:
        if self.api_key:
            return {"api_key": self.api_key}
        return {"basic_auth": (self.user, self.password)} if self.user else {}

    def _tls(self) -> dict[str, Any]:
        if self.fingerprint:
            return {"ssl_assert_fingerprint": self.fingerprint}
        return {"ca_certs": str(self.ca_file)} if self.ca_file else {}


def _plain(value: str) -> str:
    return value.replace("application/vnd.elasticsearch+", "application/").replace("; compatible-with=9", "")
