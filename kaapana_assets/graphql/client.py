"""The client that sends the package's requests to Dagster's GraphQL API.

The command line, the supervisor and the tests reach Dagster only through :class:`DagsterClient`. Nothing here imports
Dagster. The callers decide what a request is for: which job, which tags.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import requests

from kaapana_assets.errors import DagsterUnavailable, InputError, NotFound
from kaapana_assets.graphql import documents
from kaapana_assets.graphql.answers import (
    Event,
    PartitionStatus,
    Run,
    error_message,
    parse_event,
    parse_run,
    told,
)

REPOSITORY = "__repository__"
ASSET_JOB = "__ASSET_JOB"
AssetKey = str | Sequence[str]
_RELOAD_S = 300  # the new process imports Dagster and all imports of the workflow files


class DagsterClient:
    """A typed client of Dagster's webserver.

    Every method raises DagsterUnavailable if the webserver does not answer or fails internally, NotFound for an unknown
    run, job or asset, and InputError for a request that Dagster refuses.

    Args:
        url: address of the webserver, such as ``http://127.0.0.1:3000``.
        location: name of the code location.
        timeout_s: seconds to wait for an answer.
    """

    def __init__(self, url: str, *, location: str = "kaapana_assets", timeout_s: float = 60) -> None:
        self.url = url.rstrip("/")
        self.location = location
        self._timeout_s = timeout_s
        self._session = requests.Session()
        # Ignores proxies in the environment: they are not meant for a webserver on this machine.
        self._session.trust_env = False

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def launch(
        self,
        job: str,
        *,
        partition: str | None = None,
        partition_range: tuple[str, str] | None = None,
        run_config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        assets: Sequence[AssetKey] | None = None,
    ) -> str:
        """Launch a run of ``job`` and return its id.

        Args:
            job: name of the job; ASSET_JOB together with ``assets`` runs assets that have no job of their own.
            partition: key of a single partition.
            partition_range: first and last key of a contiguous range of partitions, all for this one run.
            run_config: Dagster run config.
            tags: tags of the run.
            assets: restricts the run to these assets of the job.
        """
        every_tag = dict(tags or {})
        if partition is not None:
            every_tag["dagster/partition"] = partition
        if partition_range is not None:
            every_tag["dagster/asset_partition_range_start"] = partition_range[0]
            every_tag["dagster/asset_partition_range_end"] = partition_range[1]
        selector: dict[str, Any] = {**self._repository(), "jobName": job}
        if assets is not None:
            selector["assetSelection"] = [_key(asset) for asset in assets]
        params = {
            "selector": selector,
            "runConfigData": json.dumps(run_config or {}),
            "executionMetadata": {"tags": _tag_list(every_tag)},
        }
        return str(self._ask(documents.LAUNCH_RUN, {"params": params})["run"]["runId"])

    def reexecute_from_failure(self, run_id: str, *, tags: Mapping[str, str] | None = None) -> str:
        """Launch a run that repeats the failed steps of ``run_id`` and the steps after them; return its id."""
        params = {"parentRunId": run_id, "strategy": "FROM_FAILURE", "extraTags": _tag_list(tags or {})}
        return str(self._ask(documents.REEXECUTE, {"params": params})["run"]["runId"])

    def run(self, run_id: str) -> Run:
        """Return the present state of a run and its steps."""
        return parse_run(self._ask(documents.RUN, {"id": run_id}))

    def runs(
        self,
        *,
        job: str | None = None,
        statuses: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        limit: int = 100,
    ) -> list[Run]:
        """Return the newest matching runs, newest first, without their steps."""
        wanted: dict[str, Any] = {"tags": _tag_list(tags or {})}
        if job is not None:
            wanted["pipelineName"] = job
        if statuses:
            wanted["statuses"] = list(statuses)
        return [parse_run(found) for found in self._ask(documents.RUNS, {"filter": wanted, "limit": limit})["results"]]

    def wait(
        self,
        run_id: str,
        on_progress: Callable[[Run], None] | None = None,
        *,
        on_away: Callable[[DagsterUnavailable], None] | None = None,
        timeout_s: float | None = None,
        patience_s: float = 120,
        poll_s: float = 0.3,
    ) -> Run:
        """Wait until a run has ended, and return it.

        Args:
            run_id: the run.
            on_progress: called with the run each time it changes.
            on_away: called when Dagster stops answering; the run continues.
            timeout_s: longest wait, in seconds.
            patience_s: longest time without an answer from Dagster, in seconds.
            poll_s: seconds between two requests.

        Raises:
            TimeoutError: the run did not end within ``timeout_s``; it continues.
            DagsterUnavailable: Dagster did not answer for ``patience_s``.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        answered, is_away = time.monotonic(), False
        seen = None
        while True:
            try:
                now = self.run(run_id)
            except DagsterUnavailable as exc:
                if time.monotonic() - answered > patience_s:
                    raise
                if on_away is not None and not is_away:
                    on_away(exc)
                is_away = True
                time.sleep(poll_s)
                continue
            answered, is_away = time.monotonic(), False
            if on_progress is not None and now != seen:
                on_progress(now)
            if now.finished:
                return now
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"run {run_id} of {now.job} is {now.status} after {timeout_s} s")
            seen = now
            time.sleep(poll_s)

    def events(self, run_id: str, cursor: str | None = None, *, limit: int = 1000) -> tuple[list[Event], str, bool]:
        """Return up to ``limit`` events after ``cursor``, the next cursor, and whether there are more events."""
        found = self._ask(documents.EVENTS, {"id": run_id, "cursor": cursor, "limit": limit})
        return [parse_event(event) for event in found["events"]], found["cursor"], found["hasMore"]

    def failures(self, run_id: str) -> list[str]:
        """Return a message for each failed step, and for the failure of the run as a whole."""
        return [f"{event.step or 'run'}: {event.error or event.message}" for event in self._failures(run_id)]

    def first_failure(self, run_id: str) -> str | None:
        """Return the first failure in the run's log, without the names of exceptions; None if there is none."""
        first = next(self._failures(run_id), None)
        return None if first is None else told(first.error or first.message)

    def _failures(self, run_id: str) -> Iterator[Event]:
        cursor: str | None = None
        more = True
        while more:
            events, cursor, more = self.events(run_id, cursor)
            yield from (each for each in events if each.kind in ("ExecutionStepFailureEvent", "RunFailureEvent"))

    def terminate(self, run_id: str, *, force: bool = False) -> None:
        """Ask the run to end; with ``force``, Dagster marks it as cancelled at once, even if its process is gone."""
        policy = "MARK_AS_CANCELED_IMMEDIATELY" if force else "SAFE_TERMINATE"
        self._ask(documents.TERMINATE, {"id": run_id, "policy": policy})

    def partition_status(self, asset: AssetKey) -> PartitionStatus:
        """Return the status of all partitions of ``asset``; the answer takes some MB for 50,000 partitions."""
        found = self._ask(documents.PARTITION_STATUS, {"key": _key(asset)})["assetPartitionStatuses"]
        if found["__typename"] != "DefaultPartitionStatuses":
            raise InputError(f"asset {_name(asset)} has no partitions of one dimension")
        return PartitionStatus(
            frozenset(found["materializedPartitions"]),
            frozenset(found["failedPartitions"]),
            frozenset(found["unmaterializedPartitions"]) - frozenset(found["failedPartitions"]),
            frozenset(found["materializingPartitions"]),
        )

    def job_tags(self, job: str) -> dict[str, str]:
        """Return the tags of a job in the code location."""
        selector = {**self._repository(), "pipelineName": job}
        return {tag["key"]: tag["value"] for tag in self._ask(documents.JOB_TAGS, {"selector": selector})["tags"]}

    def asset_url(self, asset: AssetKey, partition: str | None = None) -> str:
        """Return the web UI's address of an asset, or of one of its partitions."""
        page = f"{self.url}/assets/{'/'.join(_key(asset)['path'])}"
        return page if partition is None else f"{page}?view=partitions&partition={partition}"

    def run_url(self, run_id: str) -> str:
        """Return the web UI's address of a run."""
        return f"{self.url}/runs/{run_id}"

    def add_dynamic_partition(self, definition: str, key: str) -> None:
        """Add ``key`` to the dynamic partitions ``definition``; does nothing if it is there already."""
        variables = {"key": key, "definition": definition, "repository": self._repository()}
        self._ask(documents.ADD_PARTITION, variables, accept=("DuplicateDynamicPartitionError",))

    def reload(self) -> None:
        """Reload the definitions.

        Raises:
            InputError: they can't be loaded; the message is the error of the import.
        """
        _check_location(self._ask(documents.RELOAD, {"location": self.location}, timeout_s=_RELOAD_S))

    def is_loaded(self) -> bool:
        """Whether the code location is loaded, so that jobs can be launched.

        Raises:
            InputError: it can't be loaded; the message is the error of the import.
        """
        found = self._ask(
            documents.LOCATION, {"location": self.location}, accept=("WorkspaceLocationEntry", "PythonError")
        )
        if found.get("loadStatus") != "LOADED" or found.get("locationOrLoadError") is None:
            return False
        _check_location(found)
        return True

    def version(self) -> str:
        """Return the version of Dagster."""
        return str(self._ask(documents.VERSION, {}))

    def silent_daemons(self, *, since: float = 0) -> list[str]:
        """Return the required daemons that are unhealthy or without a heartbeat since ``since``, in epoch seconds."""
        statuses = self._ask(documents.DAEMONS, {})["daemonHealth"]["allDaemonStatuses"]
        return [
            daemon["daemonType"]
            for daemon in statuses
            if daemon["required"] and (not daemon["healthy"] or (daemon["lastHeartbeatTime"] or 0) < since)
        ]

    def _repository(self) -> dict[str, str]:
        return {"repositoryName": REPOSITORY, "repositoryLocationName": self.location}

    def _ask(
        self,
        document: str,
        variables: Mapping[str, Any],
        *,
        accept: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> Any:  # noqa: ANN401 - JSON
        try:
            answer = self._session.post(
                f"{self.url}/graphql",
                json={"query": document, "variables": variables},
                timeout=timeout_s or self._timeout_s,
            )
            body = answer.json()
        except requests.RequestException as exc:
            raise DagsterUnavailable(
                f"Dagster's webserver at {self.url} does not answer ({type(exc).__name__}); is the platform up?"
            ) from exc
        if body.get("errors"):
            raise DagsterUnavailable(f"Dagster at {self.url}: {body['errors'][0].get('message', body['errors'])}")
        result = body["data"]["result"]
        if isinstance(result, dict) and result["__typename"] not in accept:
            _raise_refusal(result)
        return result


def _raise_refusal(result: Mapping[str, Any]) -> None:
    kind = result["__typename"]
    if not kind.endswith(("Error", "Invalid", "Failure", "Conflict", "NotSupported", "NotFound")):
        return
    message = error_message(result)
    if kind == "PythonError":
        raise DagsterUnavailable(f"Dagster failed: {message}")
    if "NotFound" in kind:
        raise NotFound(message)
    raise InputError(message)


def _check_location(found: Mapping[str, Any]) -> None:
    loaded = found["locationOrLoadError"]
    if loaded is not None and loaded["__typename"] == "PythonError":
        raise InputError(f"the definitions can't be loaded: {error_message(loaded)}")


def _key(asset: AssetKey) -> dict[str, list[str]]:
    return {"path": asset.split("/") if isinstance(asset, str) else list(asset)}


def _name(asset: AssetKey) -> str:
    return "/".join(_key(asset)["path"])


def _tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]
