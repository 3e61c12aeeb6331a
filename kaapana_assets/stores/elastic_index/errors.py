"""Translates errors of the Elasticsearch client into errors of this package.

Messages contain the error's type and never the server's text, which may quote values of documents or
queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from elastic_transport import ApiError, SerializationError, TlsError, TransportError
from elasticsearch import AuthenticationException, AuthorizationException, BadRequestError, UnsupportedProductError

from kaapana_assets.errors import ConfigurationError, InputError, KaapanaAssetsError, NotFound, StoreUnavailable
from kaapana_assets.stores.tls_errors import fails_for_good

WORTH_ANOTHER_TRY = frozenset((429, 502, 503, 504))
_BLOCKED = "cluster_block_exception"


@contextmanager
def translated() -> Iterator[None]:
    """Raise errors of the client or the server as errors of this package."""
    try:
        yield
    except (ApiError, TransportError) as exc:
        raise translation(exc) from exc


def translation(exc: ApiError | TransportError) -> KaapanaAssetsError:
    """The error of this package for a client error; its message says what happened and what to do."""
    if isinstance(exc, UnsupportedProductError):
        return ConfigurationError(
            "KAAPANA_ELASTICSEARCH_URLS: what answers is not Elasticsearch; name the servers of a cluster"
        )
    if isinstance(exc, AuthenticationException):
        return ConfigurationError(
            "Elasticsearch does not know the user: mend KAAPANA_ELASTICSEARCH_API_KEY, or "
            "KAAPANA_ELASTICSEARCH_USER and KAAPANA_ELASTICSEARCH_PASSWORD"
        )
    if isinstance(exc, TlsError) and fails_for_good(exc):
        return ConfigurationError(
            "Elasticsearch's certificate is not trusted, or it does not speak TLS: mend "
            "KAAPANA_ELASTICSEARCH_CA, KAAPANA_ELASTICSEARCH_FINGERPRINT or KAAPANA_ELASTICSEARCH_URLS"
        )
    if isinstance(exc, ApiError):
        return _of_status(exc)
    if isinstance(exc, SerializationError):
        return StoreUnavailable("the metadata index answers with something that is not JSON; is a proxy before it?")
    return StoreUnavailable(
        f"the metadata index does not answer ({type(exc).__name__}): is Elasticsearch running, and are "
        "KAAPANA_ELASTICSEARCH_URLS right?"
    )


def _of_status(exc: ApiError) -> KaapanaAssetsError:
    kind = error_type(exc.body)
    if isinstance(exc, AuthorizationException) and kind != _BLOCKED:
        return ConfigurationError(
            f"Elasticsearch refuses this to the user ({kind}): it needs the privileges `manage`, `read` and `write` on "
            "the indices KAAPANA_ELASTICSEARCH_INDEX* and `manage_index_templates`"
        )
    if exc.meta.status == 404 and kind == "index_not_found_exception":
        return StoreUnavailable(
            "the metadata index is gone from Elasticsearch: make it again with `kaapana-assets index rebuild`"
        )
    if exc.meta.status == 404:
        return NotFound(f"Elasticsearch does not have what was asked for ({kind})")
    if isinstance(exc, BadRequestError):
        return InputError(f"Elasticsearch refuses the question ({kind}): ask for less or more simply")
    return StoreUnavailable(f"the metadata index answers with status {exc.meta.status} ({kind})")


def error_type(body: Any) -> str:  # noqa: ANN401 - whatever JSON a server, or a proxy before it, sends
    """The error type in a response, or that of the cause if the response names one."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return "unknown"
    causes = error.get("root_cause") or [error]
    found = error.get("caused_by") or causes[0]
    kind = found.get("type") if isinstance(found, dict) else None
    return str(kind or error.get("type") or "unknown")
