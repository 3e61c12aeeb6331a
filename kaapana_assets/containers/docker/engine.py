"""The API of a Docker or Podman engine: connections, images and containers, with errors of this package."""

from __future__ import annotations

import logging
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import requests
import urllib3
from docker import APIClient
from docker.errors import APIError, DockerException
from tenacity import Retrying

from kaapana_assets.errors import ConfigurationError, EngineUnavailable
from kaapana_assets.retry import Patience, repeating

_ANSWER_WITHIN_S = 60
_LOGS_SILENT_S = 30  # the log is requested again after this long without output
_AGAIN_AFTER_S = 0.5
_HEADER = struct.Struct(">BxxxL")  # stream and length of the piece, https://docs.docker.com/reference/api/engine
_STDERR = 2
# Podman answers with status 500 where Docker answers with 400.
_NEVER = re.compile(
    r"unable to start container process|executable file not found|permission denied|no such file|not a directory"
    r"|could not select device driver|exec format|invalid|no command",
    re.IGNORECASE,
)
_GIVEN_UP_FOR_S = 5.0
_Given = TypeVar("_Given")

logger = logging.getLogger(__name__)


class Engine:
    """A container engine.

    Args:
        url: its socket or address.
        patience_s: seconds for which ``patiently`` repeats a call while the engine does not answer.
    """

    def __init__(self, url: str, *, patience_s: float) -> None:
        self.url = url
        self._patience_s = patience_s
        self._version: str | None = None
        self._given_up_at: float | None = None

    @contextmanager
    def client(self) -> Iterator[APIClient]:
        """Open a connection for one thread, and translate errors within the block.

        Raises:
            EngineUnavailable: the engine does not answer, now or later within the block.
            ConfigurationError: the engine refuses a request of the block, and would refuse it again.
        """
        client: APIClient | None = None
        try:
            client = APIClient(self.url, version=self._version or "auto", timeout=_ANSWER_WITHIN_S)
            client.trust_env = False  # the engine is reached directly, never through this machine's proxy
            self._version = client.api_version
            yield client
        except APIError as exc:
            said = said_by(exc)
            if exc.is_client_error() or _NEVER.search(said):
                raise ConfigurationError(f"the container engine {self.url} refuses: {said}") from exc
            raise EngineUnavailable(f"the container engine {self.url} failed: {said}") from exc
        except (requests.RequestException, urllib3.exceptions.HTTPError, DockerException, OSError) as exc:
            if _from_elsewhere(exc):
                raise
            raise EngineUnavailable(
                f"no container engine answers at KAAPANA_DOCKER_URL={self.url}: {_reason(exc)}"
            ) from exc
        finally:
            if client is not None:
                client.close()

    def patiently(self, call: Callable[[], _Given]) -> _Given:
        """Return the result of the call, repeating it for a while if the engine does not answer.

        For some seconds after a call has waited in vain, calls are not repeated: loading workflows looks up many
        images, and would otherwise wait for each of them.

        Raises:
            EngineUnavailable: the engine still does not answer.
        """
        patience = self.patience(0.0 if self._has_just_given_up() else self._patience_s)
        try:
            return self.repeating(patience)(call)
        except EngineUnavailable:
            self._given_up_at = time.monotonic()
            raise

    def _has_just_given_up(self) -> bool:
        return self._given_up_at is not None and time.monotonic() - self._given_up_at < _GIVEN_UP_FOR_S

    def patience(self, seconds: float | None = None) -> Patience:
        """Return a new Patience of so many seconds; by default, this engine's ``patience_s``."""
        return Patience(
            self._patience_s if seconds is None else seconds, first_s=_AGAIN_AFTER_S, longest_s=_AGAIN_AFTER_S
        )

    def repeating(self, patience: Patience, *, cancelled: threading.Event | None = None) -> Retrying:
        """Return a Retrying that repeats a call while the engine does not answer; see ``retry.repeating``."""

        def tell(error: BaseException, _pause_s: float) -> None:
            if patience.failures == 1:
                logger.warning("%s; waiting for up to %.0f s", error, self._patience_s)

        return repeating(
            patience, lambda exc: isinstance(exc, EngineUnavailable), cancelled=cancelled, before_pause=tell
        )

    def is_podman(self) -> bool:
        """Whether the engine is Podman behind Docker's API."""
        with self.client() as client:
            parts = client.version().get("Components") or []
        return any(part.get("Name") == "Podman Engine" for part in parts)

    def find_image(self, reference: str) -> dict[str, Any] | None:
        """Inspect an image by its reference; None if the engine does not have it."""
        with self.client() as client:
            return _if_there(lambda: client.inspect_image(reference))  # type: ignore[no-untyped-call]

    def find_container(self, name: str) -> dict[str, Any] | None:
        """Inspect a container by name or ID; None if there is none."""
        with self.client() as client:
            return _if_there(lambda: client.inspect_container(name))

    def signal(self, container: str, name: str) -> None:
        """Send a signal to a container's main process. Does nothing if the container has ended."""
        with self.client() as client:
            _unless_gone(lambda: client.kill(container, name))

    def remove(self, container: str) -> None:
        """Kill a container if it runs, and remove it with its anonymous volumes."""
        with self.client() as client:
            # Without the kill, Podman would wait for the container to end by itself.
            _unless_gone(lambda: client.kill(container, "SIGKILL"))
            _unless_gone(lambda: client.remove_container(container, force=True, v=True))

    def logs(self, container: str, *, follow: bool, last: int | None = None) -> Iterator[tuple[bool, bytes]]:
        """Yield a container's output from its beginning, in pieces: whether it is stderr, and the bytes.

        Args:
            container: its ID.
            follow: whether to continue until the container ends. Podman may stop earlier, and responds
                only once there is output.
            last: number of last lines to yield instead of all.
        """
        wanted = {"stdout": 1, "stderr": 1, "follow": int(follow)} | ({} if last is None else {"tail": last})
        limits = (_ANSWER_WITHIN_S, _LOGS_SILENT_S)
        with self.client() as client:
            url = f"{client.base_url}/v{client.api_version}/containers/{container}/logs"
            with client.get(url, params=wanted, stream=True, timeout=limits) as answer:
                if answer.status_code == requests.codes.not_found:
                    return
                answer.raise_for_status()
                while len(header := answer.raw.read(_HEADER.size)) == _HEADER.size:
                    stream, length = _HEADER.unpack(header)
                    yield stream == _STDERR, answer.raw.read(length)


def said_by(exc: APIError) -> str:
    """Return the engine's explanation of an error, in one line."""
    return " ".join(str(exc.explanation or exc).split())[:1000]


def _if_there(call: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return call()
    except APIError as exc:
        if exc.status_code == requests.codes.not_found:
            return None
        raise


def _unless_gone(call: Callable[[], object]) -> None:
    """Make a call that ends a container; accept that it has ended or is being removed already."""
    try:
        call()
    except APIError as exc:
        is_gone = exc.status_code in (requests.codes.not_found, requests.codes.conflict)
        if not is_gone and "state improper" not in said_by(exc):  # Podman's wording, with status 500
            raise


def _from_elsewhere(exc: BaseException) -> bool:
    """Whether the caller's own code within the block raised this OSError, not the connection."""
    return isinstance(exc, OSError) and not isinstance(exc, requests.RequestException | ConnectionError | TimeoutError)


def _reason(exc: BaseException) -> str:
    """Return the message of the innermost of nested library errors, in one line."""
    while exc.__cause__ is not None or exc.__context__ is not None:
        exc = exc.__cause__ or exc.__context__  # type: ignore[assignment]
    return " ".join(str(exc).split())[:300] or type(exc).__name__
