"""How Elasticsearch is reached: addresses, credentials, TLS, time limits."""

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
    """Where the index is and how it is kept there.

    Attributes:
        urls: of one or more nodes of one cluster.
        api_key: as Elasticsearch encodes it; or ``user`` and ``password``; or none of them.
        ca_file: certificates that the servers' are checked with; else those of the system.
        fingerprint: SHA-256 of the certificate authority, hexadecimal; instead of ``ca_file``.
        timeout_s: seconds for one request.
        patience_s: seconds that a write is tried again while the servers are away or too busy.
        index: name of the alias, and beginning of the names of all that is made on the server.
        shards: of a new index.
        replicas: of a new index.
        fields: so many different fields are searched with their type; the rest lies in ``other``.
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
        """A client; nothing is sent yet. It is safe for threads, not over a fork.

        Raises:
            ConfigurationError: addresses or TLS settings that the client cannot use.
        """
        from elastic_transport import Transport
        from elasticsearch import Elasticsearch

        class PlainTransport(Transport):
            """Asks in no version's name: then servers of 8.19 answer a client of 9, too."""

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
