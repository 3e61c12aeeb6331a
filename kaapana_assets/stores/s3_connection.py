"""How to reach an S3 server: address, credentials, limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import certifi
import urllib3
from minio import Minio

from kaapana_assets.errors import ConfigurationError

_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 10.0
_CONNECT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class S3Connection:
    """One S3 server and how to talk to it.

    Attributes:
        endpoint: ``host:port`` without scheme.
        secure: TLS.
        region: empty asks the server for that of each bucket.
        ca_file: certificates that are trusted instead of the usual ones.
        timeout_s: without a byte for this long, a request is taken for lost.
        attempts: of each request: a lost connection and the statuses 429, 500, 502, 503 and 504 are
            tried again after a wait that doubles, from 0.2 s to 10 s.
    """

    endpoint: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    secure: bool = True
    region: str = ""
    ca_file: Path | None = None
    timeout_s: float = 60.0
    attempts: int = 6

    def open(self) -> Minio:
        """A client; nothing is sent yet.

        Raises:
            ConfigurationError: the address cannot be one.
        """
        retries = urllib3.Retry(
            total=self.attempts - 1,
            backoff_factor=_FIRST_WAIT_S,
            backoff_max=_LONGEST_WAIT_S,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=None,
            raise_on_status=False,
            respect_retry_after_header=False,
        )
        http = urllib3.PoolManager(
            maxsize=10,
            timeout=urllib3.Timeout(connect=min(_CONNECT_S, self.timeout_s), read=self.timeout_s),
            retries=retries,
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(self.ca_file or certifi.where()),
        )
        try:
            return Minio(
                self.endpoint,
                access_key=self.access_key,
                secret_key=self.secret_key,
                secure=self.secure,
                region=self.region or None,
                http_client=http,
            )
        except ValueError as exc:
            raise ConfigurationError(f"KAAPANA_S3_ENDPOINT={self.endpoint}: no host:port ({exc})") from exc
