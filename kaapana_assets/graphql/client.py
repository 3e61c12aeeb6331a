"""What the rest of the package asks of Dagster, over its GraphQL API.

The command line, the supervisor and tests reach Dagster only through :class:`DagsterClient`;
nothing here imports Dagster. What each question means to a user (which job, which tags) is
decided by the callers.
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
_RELOAD_S = 300  # a new process imports Dagster and all that workflow files import


class DagsterClient:
    """Dagster's webserver, asked with typed questions.

    Every method raises DagsterUnavailable when the webserver does not answer or fails in itself,
    NotFound for an unknown run, job or asset, and InputError for what Dagster refuses.

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
        # A proxy from the environment is never meant for a webserver on this machine.
        self._session.trust_env = False

    def close(self) -> None:
        """Let go of connections."""
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
        """The id of a new run of ``job``.

        Args:
            job: name of the job; ASSET_JOB with ``assets`` runs assets without a job of their own.
            partition: key of the one partition to run for.
            partition_range: first and last key of a contiguous range, for one run over all of it.
            run_config: Dagster run config.
            tags: tags of the run.
            assets: only these assets of the job.
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
        """The id of a new run that repeats the failed steps of ``run_id`` and what follows them."""
        params = {"parentRunId": run_id, "strategy": "FROM_FAILURE", "extraTags": _tag_list(tags or {})}
        return str(self._ask(documents.REEXECUTE, {"params": params})["run"]["runId"])

    def run(self, run_id: str) -> Run:
        """The run with its steps as they are now."""
        return parse_run(self._ask(documents.RUN, {"id": run_id}))

    def runs(
        self,
        *,
        job: str | None = None,
        statuses: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        limit: int = 100,
    ) -> list[Run]:
        """The newest runs that fit, newest first, without their steps."""
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
        """The run when it finished.

        Args:
            run_id: the run.
            on_progress: sees it each time that it changed.
            on_away: is told when Dagster stops answering, which does not stop the run.
            timeout_s: for the whole of it.
            patience_s: how long Dagster may be away at a time.
            poll_s: seconds between two looks.

        Raises:
            TimeoutError: it did not finish in ``timeout_s``; it goes on.
            DagsterUnavailable: there was no answer for ``patience_s``.
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
        """Up to ``limit`` events after ``cursor``, the cursor to go on with, and whether there are more now."""
        found = self._ask(documents.EVENTS, {"id": run_id, "cursor": cursor, "limit": limit})
        return [parse_event(event) for event in found["events"]], found["cursor"], found["hasMore"]

    def failures(self, run_id: str) -> list[str]:
        """Why steps of the run, or the run as a whole, failed: one message each."""
        return [f"{event.step or 'run'}: {event.error or event.message}" for event in self._failures(run_id)]

    def first_failure(self, run_id: str) -> str | None:
        """Why the run failed, as its log says it first; for people, without the names of exceptions."""
        first = next(self._failures(run_id), None)
        return None if first is None else told(first.error or first.message)

    def _failures(self, run_id: str) -> Iterator[Event]:
        cursor: str | None = None
        more = True
        while more:
            events, cursor, more = self.events(run_id, cursor)
            yield from (each for each in events if each.kind in ("ExecutionStepFailureEvent", "RunFailureEvent"))

    def terminate(self, run_id: str, *, force: bool = False) -> None:
        """Ask the run to end; with ``force`` it counts as cancelled even if its process is gone."""
        policy = "MARK_AS_CANCELED_IMMEDIATELY" if force else "SAFE_TERMINATE"
        self._ask(documents.TERMINATE, {"id": run_id, "policy": policy})

    def partition_status(self, asset: AssetKey) -> PartitionStatus:
        """What became of each partition of ``asset``; all of them, some MB for 50,000."""
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
        """The tags of a job, as the code location defines it."""
        selector = {**self._repository(), "pipelineName": job}
        return {tag["key"]: tag["value"] for tag in self._ask(documents.JOB_TAGS, {"selector": selector})["tags"]}

    def asset_url(self, asset: AssetKey, partition: str | None = None) -> str:
        """The page of an asset, or of one partition of it, in the web UI."""
        page = f"{self.url}/assets/{'/'.join(_key(asset)['path'])}"
        return page if partition is None else f"{page}?view=partitions&partition={partition}"

    def run_url(self, run_id: str) -> str:
        """The page of a run in the web UI."""
        return f"{self.url}/runs/{run_id}"

    def add_dynamic_partition(self, definition: str, key: str) -> None:
        """Add ``key`` to the dynamic partitions ``definition``; one that is there already stays."""
        variables = {"key": key, "definition": definition, "repository": self._repository()}
        self._ask(documents.ADD_PARTITION, variables, accept=("DuplicateDynamicPartitionError",))

    def reload(self) -> None:
        """Load the definitions again.

        Raises:
            InputError: they can't be loaded; the message is the import's error.
        """
        _check_location(self._ask(documents.RELOAD, {"location": self.location}, timeout_s=_RELOAD_S))

    def is_loaded(self) -> bool:
        """Whether the code location is loaded and jobs can be launched.

        Raises:
            InputError: it can't be loaded; the message is the import's error.
        """
        found = self._ask(
            documents.LOCATION, {"location": self.location}, accept=("WorkspaceLocationEntry", "PythonError")
        )
        if found.get("loadStatus") != "LOADED" or found.get("locationOrLoadError") is None:
            return False
        _check_location(found)
        return True

    def version(self) -> str:
        """Version of Dagster."""
        return str(self._ask(documents.VERSION, {}))

    def silent_daemons(self, *, since: float = 0) -> list[str]:
        """The required daemons of Dagster without a heartbeat after ``since``, seconds since the epoch."""
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
