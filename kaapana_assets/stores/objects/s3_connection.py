"""The connection to an S3 server: address, credentials and limits, and the translation of its errors."""

from __future__ import annotations

import http.client
import logging
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import certifi
import urllib3
from minio import Minio
from minio.error import MinioAdminException, MinioException, S3Error

from kaapana_assets.errors import (
    ConfigurationError,
    ConflictingContent,
    KaapanaAssetsError,
    NotFound,
    StoreUnavailable,
)
from kaapana_assets.stores.tls_errors import fails_for_good

logger = logging.getLogger(__name__)

_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 10.0
_CONNECT_S = 10.0
_BUSY = frozenset({"SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "RequestTimeout"})
_ABSENT = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "ResourceNotFound", "MethodNotAllowed"})
_CREDENTIALS = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"})
_REGION = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect", "Redirect", "InvalidRegion"})
_TAKEN = frozenset({"XMinioParentIsObject", "XMinioObjectExistsAsDirectory"})

LIBRARY_ERRORS = (
    MinioException,
    MinioAdminException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ET.ParseError,
    ValueError,
)
"""The errors that minio 7 raises; it raises ValueError for a response that it cannot read."""


class NamingPool(urllib3.PoolManager):
    """A connection pool that keeps the server's name, which minio's client does not return.

    Attributes:
        server: the header ``Server`` of the last response; empty before the first.
    """

    server = ""

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **given: Any  # noqa: ANN401 - as urllib3 has it
    ) -> urllib3.BaseHTTPResponse:  # fmt: skip
        """Send one request, as in the base class."""
        answer = super().urlopen(method, url, redirect, **given)
        self.server = answer.headers.get("Server", "")
        return answer


@dataclass(frozen=True, kw_only=True)
class S3Connection:
    """The address and the credentials of one S3 server, and the limits of requests to it.

    Attributes:
        endpoint: ``host:port`` without scheme.
        secure: whether to use TLS.
        region: region of the buckets; if empty, the server is asked for the region of each bucket.
        ca_file: CA certificates that are trusted instead of the usual ones.
        timeout_s: seconds without a byte after which a request counts as lost.
        attempts: attempts for each request. It is retried after a lost connection and after the statuses
            429, 500, 502, 503 and 504; the wait doubles from 0.2 s to 10 s.
    """

    endpoint: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    secure: bool = True
    region: str = ""
    ca_file: Path | None = None
    timeout_s: float = 60.0
    attempts: int = 8

    def open(self) -> Minio:
        """A client that has sent nothing yet.

        Raises:
            ConfigurationError: the endpoint is no ``host:port``.
        """
        return self.open_naming()[0]

    def open_naming(self) -> tuple[Minio, NamingPool]:
        """A client, and its connection pool, which knows the name of the server."""
        retries = _ToldRetry(
            total=self.attempts - 1,
            backoff_factor=_FIRST_WAIT_S,
            backoff_max=_LONGEST_WAIT_S,
            backoff_jitter=_FIRST_WAIT_S,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=None,
            raise_on_status=False,
            respect_retry_after_header=False,
        )
        http = NamingPool(
            maxsize=10,
            timeout=urllib3.Timeout(connect=min(_CONNECT_S, self.timeout_s), read=self.timeout_s),
            retries=retries,
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(self.ca_file or certifi.where()),
        )
        try:
            client = Minio(
                self.endpoint,
                access_key=self.access_key,
                secret_key=self.secret_key,
                secure=self.secure,
                region=self.region or None,
                http_client=http,
            )
        except ValueError as exc:
            raise ConfigurationError(f"KAAPANA_S3_ENDPOINT={self.endpoint}: no host:port ({exc})") from exc
        return client, http


class _ToldRetry(urllib3.Retry):
    """Logs each retry. Of the request, it logs only the server's address, because the rest may be signed."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: urllib3.connectionpool.ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> _ToldRetry:
        """Count one attempt, as ``urllib3.Retry`` does; a certificate that is not trusted fails at once."""
        if error is not None and fails_for_good(error):
            raise error
        left = super().increment(method, url, response, error, _pool, _stacktrace)
        where = f"{_pool.host}:{_pool.port}" if _pool is not None else "the server"
        why = f"status {response.status}" if response is not None else type(error).__name__
        logger.warning(
            "S3 at %s does not serve a request (%s); trying again in %.1f s", where, why, left.get_backoff_time()
        )
        return left


def translated(exc: BaseException, *, what: str, where: str) -> KaapanaAssetsError:
    """The error of this package for one of minio or urllib3, without its text, which may hold signed addresses."""
    code = exc.code or "" if isinstance(exc, S3Error) else ""
    if code in _ABSENT:
        return NotFound(f"no {what} on {where}")
    if code in _TAKEN:
        return ConflictingContent(f"{what}: a part of its name is taken by another object or by names below it")
    if code in _CREDENTIALS:
        return ConfigurationError(
            f"{where} refuses KAAPANA_S3_ACCESS_KEY and KAAPANA_S3_SECRET_KEY for {what} ({code}): are they right, and "
            "may this user read and write there?"
        )
    if code in _REGION:
        return ConfigurationError(f"{where} has another region than KAAPANA_S3_REGION says ({code})")
    # After retries, the error of the last attempt is inside another one.
    reason = getattr(exc, "reason", None) if isinstance(exc, urllib3.exceptions.MaxRetryError) else exc
    if fails_for_good(exc):
        return ConfigurationError(f"{where} has no certificate that is trusted: see KAAPANA_S3_CA, KAAPANA_S3_SECURE")
    said = exc.strerror if isinstance(exc, OSError) else code
    why = "it is busy" if code in _BUSY else said or type(reason or exc).__name__
    status = getattr(exc, "status_code", None)
    return StoreUnavailable(f"{where} does not serve {what}: {why}{f', status {status}' if status else ''}; try again")
