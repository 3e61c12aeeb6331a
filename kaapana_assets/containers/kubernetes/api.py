"""The few calls of the Kubernetes API that operators need, with retries and errors of this package.

Answers are plain JSON. A call that fails temporarily is retried for a while, because API servers restart
and control planes move.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from kaapana_assets.errors import ConfigurationError, EngineUnavailable, KaapanaAssetsError, NotFound
from kaapana_assets.retry import Patience, repeating

Json = dict[str, Any]

LIBRARY_ERRORS = (ApiException, urllib3.exceptions.HTTPError, ConfigException, OSError)
"""The errors that the Kubernetes client raises."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 5.0
_CONNECT_S, _ANSWER_S = 5.0, 30.0
_AGAIN = frozenset((0, 408, 429, 500, 502, 503, 504))

logger = logging.getLogger(__name__)


class Gone(NotFound):
    """The object does not exist in the cluster, or no longer does."""


class NameTaken(KaapanaAssetsError):
    """An object with this name exists already."""


class Cluster:
    """One namespace of a cluster.

    Args:
        kubeconfig: the file that locates the cluster; None uses the service account of the pod that this
            process runs in.
        namespace: namespace of Jobs and pods.
        patience_s: seconds for which a call is retried while the cluster is unavailable.

    Raises:
        ConfigurationError: the file does not exist, or names no usable cluster.
    """

    def __init__(self, kubeconfig: Path | None, *, namespace: str, patience_s: float) -> None:
        self.namespace = namespace
        self._patience_s = patience_s
        configuration = client.Configuration()
        with translated():
            if kubeconfig is None:
                config.load_incluster_config(client_configuration=configuration)
            else:
                config.load_kube_config(str(kubeconfig), client_configuration=configuration)
        configuration.retries = False  # retried in _ask, which logs it
        self._client = client.ApiClient(configuration)
        self._core, self._batch = client.CoreV1Api(self._client), client.BatchV1Api(self._client)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def version(self) -> str:
        """Return the version that the API server reports."""
        found = self._ask(lambda: client.VersionApi(self._client).get_code(_preload_content=False, **_TIMES))
        return str(found["gitVersion"])

    def create_job(self, manifest: Mapping[str, Any]) -> Json:
        """Create a Job.

        Raises:
            Taken: a Job with this name exists, perhaps created by a call whose answer was lost.
        """
        return self._ask(
            lambda: self._batch.create_namespaced_job(self.namespace, manifest, _preload_content=False, **_TIMES)
        )

    def job(self, name: str) -> Json:
        """Return one Job.

        Raises:
            Gone: it does not exist.
        """
        return self._ask(
            lambda: self._batch.read_namespaced_job(name, self.namespace, _preload_content=False, **_TIMES)
        )

    def jobs(self, selector: str) -> list[Json]:
        """Return the Jobs that match a label selector."""
        found = self._ask(
            lambda: self._batch.list_namespaced_job(
                self.namespace, label_selector=selector, _preload_content=False, **_TIMES
            )
        )
        return list(found["items"])

    def change_job(self, name: str, patch: Mapping[str, Any]) -> None:
        """Merge a patch into a Job.

        Raises:
            Gone: it does not exist.
        """
        self._ask(
            lambda: self._batch.patch_namespaced_job(name, self.namespace, patch, _preload_content=False, **_TIMES)
        )

    def delete_job(self, name: str) -> None:
        """Delete a Job and its pod. Does nothing if the Job does not exist."""
        try:
            self._ask(
                lambda: self._batch.delete_namespaced_job(
                    name, self.namespace, propagation_policy="Background", _preload_content=False, **_TIMES
                )
            )
        except Gone:
            return

    def pods(self, selector: str, *, fields: str = "") -> tuple[list[Json], str]:
        """Return the pods that match a label selector, and the resource version from which ``changes`` continues."""
        found = self._ask(
            lambda: self._core.list_namespaced_pod(
                self.namespace, label_selector=selector, field_selector=fields, _preload_content=False, **_TIMES
            )
        )
        return list(found["items"]), str(found["metadata"]["resourceVersion"])

    def changes(self, selector: str, version: str, *, within_s: int) -> Iterator[tuple[str, Json]]:
        """Yield ``(type, pod)`` for each change since a resource version, for ``within_s`` seconds at most.

        Raises:
            Gone: the version is too old, or the connection broke; list the pods again.
        """
        try:
            answer = self._core.list_namespaced_pod(
                self.namespace, label_selector=selector, resource_version=version, watch=True,
                timeout_seconds=within_s, _preload_content=False, _request_timeout=(_CONNECT_S, within_s + 10),
            )  # fmt: skip
            try:
                rest = b""
                for piece in answer.stream(65_536):
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            raise Gone("the cluster does not remember that version")
                        yield event["type"], event["object"]
            finally:
                answer.release_conn()
        except LIBRARY_ERRORS as exc:
            raise Gone(f"the connection to the cluster broke: {type(exc).__name__}") from exc

    def log(self, pod: str, *, container: str, since: str, follow: bool, last: int | None = None) -> Iterator[bytes]:
        """Yield a container's log in pieces of bytes; each line begins with its time.

        Args:
            pod: name of the pod.
            container: name of the container.
            since: RFC 3339 time of the first line to return; "" for all lines.
            follow: whether to continue until the container ends.
            last: return only this many lines from the end; a line over 16 KiB counts as several.

        Raises:
            Gone: there is no log (yet, or any more), or the connection broke.
        """
        try:
            # The client's own method has no parameter for an absolute time.
            query = [("container", container), ("timestamps", "true"), ("follow", "true" if follow else "false")]
            if since:
                query.append(("sinceTime", since))
            if last is not None:
                query.append(("tailLines", str(last)))
            answer = self._client.call_api(
                "/api/v1/namespaces/{namespace}/pods/{name}/log", "GET",
                {"namespace": self.namespace, "name": pod}, query, {"Accept": "*/*"},
                auth_settings=["BearerToken"], _preload_content=False, _return_http_data_only=True,
                _request_timeout=(_CONNECT_S, None if follow else _ANSWER_S),
            )  # fmt: skip
            try:
                yield from answer.stream(65_536)
            finally:
                answer.close()  # a followed log may never end
                answer.release_conn()
        except LIBRARY_ERRORS as exc:
            raise Gone(f"the log of pod {pod} cannot be read: {type(exc).__name__}") from exc

    def warnings(self, kind: str, name: str) -> list[str]:
        """Return the messages of the warning events of an object, oldest first."""
        fields = f"involvedObject.kind={kind},involvedObject.name={name},type=Warning"
        found = self._ask(
            lambda: self._core.list_namespaced_event(
                self.namespace, field_selector=fields, _preload_content=False, **_TIMES
            )
        )
        return [f"{event.get('reason', '')}: {event.get('message', '')}" for event in found["items"]]

    def _ask(self, call: Callable[[], Any]) -> Json:
        """Return the answer as JSON; repeat the call while the cluster is unavailable.

        Raises:
            EngineUnavailable: the cluster is unavailable for longer than ``patience_s``.
            Gone, Taken, ConfigurationError: see ``translation``.
        """

        def ask() -> Json:
            with translated():
                answer = call()
                try:
                    return dict(json.loads(answer.data))
                finally:
                    answer.release_conn()

        patience = Patience(self._patience_s, first_s=_FIRST_WAIT_S, longest_s=_LONGEST_WAIT_S)

        def tell(error: BaseException, _pause_s: float) -> None:
            if patience.failures == 1:
                logger.warning("%s; waiting for up to %.0f s", error, self._patience_s)

        return repeating(patience, lambda exc: isinstance(exc, EngineUnavailable), before_pause=tell)(ask)


_TIMES: dict[str, Any] = {"_request_timeout": (_CONNECT_S, _ANSWER_S)}


@contextmanager
def translated() -> Iterator[None]:
    """Translate the errors of the Kubernetes client within the block into errors of this package."""
    try:
        yield
    except (*LIBRARY_ERRORS, json.JSONDecodeError) as exc:
        raise translation(exc) from exc


def translation(exc: Exception) -> KaapanaAssetsError:
    """Return the error of this package for an error of the client; it says what happened and what to do."""
    if isinstance(exc, ConfigException):
        return ConfigurationError(
            f"KAAPANA_KUBECONFIG: {_first_line(exc)}; name the file that says where the cluster is"
        )
    if isinstance(exc, ApiException):
        return _of_status(exc)
    if isinstance(exc, urllib3.exceptions.SSLError):
        return ConfigurationError(f"the Kubernetes API server's certificate is not trusted: {_first_line(exc)}")
    if isinstance(exc, FileNotFoundError):
        return ConfigurationError(f"KAAPANA_KUBECONFIG: there is no file {exc.filename}")
    return EngineUnavailable(f"the Kubernetes API server does not answer ({type(exc).__name__})")


def _of_status(exc: ApiException) -> KaapanaAssetsError:
    said = _message(exc)
    if exc.status == 404:
        return Gone(f"the cluster does not have it: {said}")
    if exc.status == 409:
        return NameTaken(f"the cluster has it already: {said}")
    if exc.status == 401:
        return ConfigurationError(f"the cluster does not know the user of KAAPANA_KUBECONFIG: {said}")
    if exc.status == 403 and "exceeded quota" not in said:
        return ConfigurationError(
            f"the cluster refuses: {said}. The rights that the platform needs are those of the Helm chart "
            "(helm/kaapana-assets)"
        )
    if exc.status in _AGAIN or exc.status == 403:
        return EngineUnavailable(f"the Kubernetes API server answers with status {exc.status}: {said}")
    return ConfigurationError(f"the cluster cannot do what was asked (status {exc.status}): {said}")


def _message(exc: ApiException) -> str:
    body = exc.body.decode(errors="replace") if isinstance(exc.body, bytes) else str(exc.body or "")
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return (body or str(exc.reason))[:300].strip()


def _first_line(exc: Exception) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0][:300]
