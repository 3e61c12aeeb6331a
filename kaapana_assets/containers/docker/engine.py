"""The API of a container engine, Docker's or Podman's: connections, images, and its errors in our words."""

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
_LOGS_SILENT_S = 30  # after so long without output the log is asked for again
_AGAIN_AFTER_S = 0.5
_HEADER = struct.Struct(">BxxxL")  # stream and length of what follows, https://docs.docker.com/reference/api/engine
_STDERR = 2
# Podman answers 500 to what Docker answers 400.
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
        patience_s: seconds that calls made by ``patiently`` wait for one that does not answer.
    """

    def __init__(self, url: str, *, patience_s: float) -> None:
        self.url = url
        self._patience_s = patience_s
        self._version: str | None = None
        self._given_up_at: float | None = None

    @contextmanager
    def client(self) -> Iterator[APIClient]:
        """A connection of its own, for one thread.

        Raises:
            EngineUnavailable: the engine does not answer, also later within the block.
            ConfigurationError: it refuses what the block asks for, and would do so again.
        """
        client: APIClient | None = None
        try:
            client = APIClient(self.url, version=self._version or "auto", timeout=_ANSWER_WITHIN_S)
            client.trust_env = False  # an engine is reached directly, whatever proxy this machine uses
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
        """What the call gives; made again, for some time, while the engine does not answer.

        Right after a call that waited in vain, the engine is asked once: loading workflows asks for many images, and
        would otherwise wait for each of them.

        Raises:
            EngineUnavailable: it does not answer for all that time.
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
        """A new one, of the length that this engine is given unless another is named."""
        return Patience(
            self._patience_s if seconds is None else seconds, first_s=_AGAIN_AFTER_S, longest_s=_AGAIN_AFTER_S
        )

    def repeating(self, patience: Patience, *, cancelled: threading.Event | None = None) -> Retrying:
        """What repeats a call while the engine does not answer, as ``retry.repeating`` does."""

        def tell(error: BaseException, _pause_s: float) -> None:
            if patience.failures == 1:
                logger.warning("%s; waiting for up to %.0f s", error, self._patience_s)

        return repeating(
            patience, lambda exc: isinstance(exc, EngineUnavailable), cancelled=cancelled, before_pause=tell
        )

    def is_podman(self) -> bool:
        """Whether it is Podman with Docker's API."""
        with self.client() as client:
            parts = client.version().get("Components") or []
        return any(part.get("Name") == "Podman Engine" for part in parts)

    def find_image(self, reference: str) -> dict[str, Any] | None:
        """What the engine says of an image that it has; None where it has none of that reference."""
        with self.client() as client:
            return _if_there(lambda: client.inspect_image(reference))  # type: ignore[no-untyped-call]

    def find_container(self, name: str) -> dict[str, Any] | None:
        """What the engine says of a container, by name or ID; None where there is none."""
        with self.client() as client:
            return _if_there(lambda: client.inspect_container(name))

    def signal(self, container: str, name: str) -> None:
        """Send a signal to a container's first process; nothing where that has ended."""
        with self.client() as client:
            _unless_gone(lambda: client.kill(container, name))

    def remove(self, container: str) -> None:
        """End a container if it runs, and remove it with all that is its own."""
        with self.client() as client:
            # Podman would wait for it to end by itself otherwise.
            _unless_gone(lambda: client.kill(container, "SIGKILL"))
            _unless_gone(lambda: client.remove_container(container, force=True, v=True))

    def logs(self, container: str, *, follow: bool) -> Iterator[tuple[bool, bytes]]:
        """Pieces of a container's output from its beginning: whether to stderr, and the bytes.

        Args:
            container: its ID.
            follow: go on until the container ends. Podman may give up earlier, and begins only when
                there is output.
        """
        wanted = {"stdout": 1, "stderr": 1, "follow": int(follow)}
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
    """What the engine said, in one line."""
    return " ".join(str(exc.explanation or exc).split())[:1000]


def _if_there(call: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return call()
    except APIError as exc:
        if exc.status_code == requests.codes.not_found:
            return None
        raise


def _unless_gone(call: Callable[[], object]) -> None:
    """Make a call that ends something; that it has ended or is being removed is as good."""
    try:
        call()
    except APIError as exc:
        is_gone = exc.status_code in (requests.codes.not_found, requests.codes.conflict)
        if not is_gone and "state improper" not in said_by(exc):  # Podman's words, with 500
            raise


def _from_elsewhere(exc: BaseException) -> bool:
    """Whether an OSError is of the caller's own doing within the block."""
    return isinstance(exc, OSError) and not isinstance(exc, requests.RequestException | ConnectionError | TimeoutError)


def _reason(exc: BaseException) -> str:
    """The innermost of the errors that libraries wrap in each other, in one line."""
    while exc.__cause__ is not None or exc.__context__ is not None:
        exc = exc.__cause__ or exc.__context__  # type: ignore[assignment]
    return " ".join(str(exc).split())[:300] or type(exc).__name__
