"""The connection to a DICOMweb archive: address, credentials and limits, and the translation of its errors."""

from __future__ import annotations

import http.client
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import requests
import retrying
import urllib3
from dicomweb_client.web import DICOMwebClient
from requests.adapters import HTTPAdapter

from kaapana_assets.errors import ConfigurationError, KaapanaAssetsError, NotFound, StoreUnavailable
from kaapana_assets.retry import Patience, repeating
from kaapana_assets.stores.tls_errors import fails_for_good

_Result = TypeVar("_Result")
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 10.0
_CONNECT_S = 10.0
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_ADDRESS_ERRORS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.TooManyRedirects,
)

_NO_ANSWER = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    retrying.RetryError,
)

LIBRARY_ERRORS = (
    *_NO_ANSWER,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)
"""The errors that requests, urllib3 and dicomweb-client raise; the last four mean a response of the wrong shape."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ArchiveConnection:
    """The address and the credentials of one DICOMweb archive, and the limits of requests to it.

    Attributes:
        url: the root of its services, without user and password.
        ca_file: CA certificates that are trusted instead of the usual ones.
        timeout_s: seconds without a byte after which a request counts as lost.
        attempts: attempts for each request. It is retried after a failure that may be temporary; the wait
            doubles from about 0.2 s to 10 s.
        parallel: how many requests may run at the same time.
    """

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    ca_file: Path | None = None
    timeout_s: float = 60.0
    attempts: int = 8
    parallel: int = 4

    def session(self) -> requests.Session:
        """An HTTP session with the credentials of the archive."""
        session = requests.Session()
        session.trust_env = False  # a .netrc of the user would replace the credentials
        if self.user:
            session.auth = (self.user, self.password)
        if self.token:
            session.headers["Authorization"] = f"Bearer {self.token}"
        if self.ca_file is not None:
            session.verify = str(self.ca_file)
        adapter = HTTPAdapter(pool_maxsize=self.parallel, pool_block=True)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        session.hooks["response"].append(_refuse_nothing)
        return session

    def client(self, session: requests.Session) -> DICOMwebClient:
        """A client that does not retry by itself."""
        client = DICOMwebClient(self.url, session=session, timeout=self.timeouts)
        client.set_http_retry_params(retry=False)
        return client

    @property
    def timeouts(self) -> tuple[float, float]:
        """The timeouts to connect and between two bytes of a response, in seconds."""
        return min(_CONNECT_S, self.timeout_s), self.timeout_s

    def tried(self, what: str, call: Callable[[], _Result]) -> _Result:
        """Return the result of a call, which is retried if that may help.

        Errors of the libraries become errors of this package here.

        Args:
            what: what the call works on, for messages.
            call: may be called several times.

        Raises:
            NotFound: the archive does not have what was requested.
            ConfigurationError: the archive refuses the credentials or the size of the request, its certificate
                is not trusted, or the address has no DICOMweb services.
            StoreUnavailable: any other failure, after all attempts.
        """
        where = f"the archive {self.url}"
        patience = Patience(attempts=self.attempts, first_s=_FIRST_WAIT_S, longest_s=_LONGEST_WAIT_S)

        def may_pass(exc: BaseException) -> bool:
            return isinstance(exc, LIBRARY_ERRORS) and translated(exc, what=what, where=where)[1]

        def tell(exc: BaseException, pause_s: float) -> None:
            logger.warning("%s; trying again in %.1f s", translated(exc, what=what, where=where)[0], pause_s)

        try:
            return repeating(patience, may_pass, before_pause=tell)(call)
        except LIBRARY_ERRORS as exc:
            raise translated(exc, what=what, where=where)[0] from exc


def _refuse_nothing(response: requests.Response, **_: object) -> None:
    """Raise for an empty response to a search: it was cut off, and does not mean that nothing was found."""
    request = response.request
    is_search = request.method == "GET" and "json" in request.headers.get("Accept", "")
    if is_search and response.status_code == 200 and not response.content:
        raise requests.exceptions.ConnectionError("an empty answer")


def translated(exc: BaseException, *, what: str, where: str) -> tuple[KaapanaAssetsError, bool]:
    """The error of this package for one of the libraries, and whether the same request may succeed later.

    The library's text is left out: it may hold an address with a query, or text of the server.
    """
    response = getattr(exc, "response", None)
    status = getattr(response, "status_code", None)
    if status in (404, 410):
        return NotFound(f"{where} has no {what}"), False
    if status in (401, 403):
        hint = "see KAAPANA_DICOMWEB_USER, KAAPANA_DICOMWEB_PASSWORD and KAAPANA_DICOMWEB_TOKEN"
        return ConfigurationError(f"{where} refuses the credentials for {what} (status {status}): {hint}"), False
    if status == 413:
        hint = "lower KAAPANA_DICOMWEB_BATCH_BYTES"
        return ConfigurationError(f"{where} takes no request as large as that of {what}: {hint}"), False
    if status is not None:
        return StoreUnavailable(f"{where} answers {status} for {what}"), status in _TRY_AGAIN
    if fails_for_good(exc):
        return ConfigurationError(f"{where} has no certificate that is trusted: see KAAPANA_DICOMWEB_CA"), False
    if isinstance(exc, _ADDRESS_ERRORS):
        return ConfigurationError(f"{where}: KAAPANA_DICOMWEB_URL is no address of DICOMweb services"), False
    if isinstance(exc, _NO_ANSWER):
        return StoreUnavailable(f"{where} does not answer for {what} ({type(exc).__name__})"), True
    if isinstance(exc, OSError):
        return StoreUnavailable(f"{what}: files of this machine ({exc.strerror or type(exc).__name__})"), False
    return StoreUnavailable(f"{where} gives an answer for {what} that cannot be read ({type(exc).__name__})"), True
