"""The values that one run of a workflow works with: request, stores, context, and operator results."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from kaapana_assets.containers.protocol import Runner
from kaapana_assets.stores.files.run_directory import RunDirectory
from kaapana_assets.stores.files.shelf import Shelf
from kaapana_assets.stores.objects.protocol import ObjectStore
from kaapana_assets.stores.pacs.protocol import Pacs
from kaapana_assets.tree_limits import Limits
from kaapana_assets.workflows.fingerprints import code_version
from kaapana_assets.workflows.launch_request import Mode
from kaapana_assets.workflows.model import Workflow
from kaapana_assets.workflows.operators import Operator
from kaapana_assets.workflows.parameters import Value


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """The request for a run of a workflow, kept in conf.json of the run's record.

    Attributes:
        cohort: name of the cohort; empty for a backfill over series.
        series: SeriesInstanceUID -> data version of the series when the run was prepared.
        missing: SeriesInstanceUID -> why the series cannot be used.
        forgotten: number of the cohort's series that were forgotten since.
    """

    workflow: str
    dagster_run_id: str
    created: str
    cohort: str
    mode: Mode
    force: bool
    parameters: Mapping[str, Value]
    series: Mapping[str, str]
    missing: Mapping[str, str] = field(default_factory=dict)
    forgotten: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the request as conf.json holds it."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> RunRequest:
        """Read the request from conf.json; other keys are ignored."""
        return RunRequest(**{each.name: values[each.name] for each in fields(RunRequest) if each.name in values})


@dataclass(frozen=True, kw_only=True)
class Stores:
    """The stores and the runner of a run, with limits on parallel work.

    Attributes:
        series_per_launch: maximum number of series of one launch in batch mode.
        parallel_series: how many series run in parallel in single mode.
        parallel_retrievals: how many series are retrieved from the PACS in parallel.
        limits: maximum size of one output.
    """

    pacs: Pacs
    objects: ObjectStore
    shelf: Shelf
    runner: Runner
    series_per_launch: int
    parallel_series: int
    parallel_retrievals: int
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """One run of one workflow.

    Attributes:
        output: called with each line that an operator prints.
        cancelled: ends all running operators when set.
    """

    workflow: Workflow
    request: RunRequest
    directory: RunDirectory
    stores: Stores
    log: logging.Logger
    output: Callable[[str], None]
    cancelled: threading.Event = field(default_factory=threading.Event)

    def of(self, operator: Operator) -> OperatorRun:
        """Return the context of one operator in this run."""
        return OperatorRun(**{each.name: getattr(self, each.name) for each in fields(RunContext)}, operator=operator)


@dataclass(frozen=True, kw_only=True)
class OperatorRun(RunContext):
    """The context of one operator in one run of a workflow."""

    operator: Operator

    def code_version(self) -> str:
        """Return the version of all that the outputs depend on, except the inputs; see ``fingerprints``."""
        return code_version(self.workflow, self.operator, self.stores.runner, self.request.parameters)


@dataclass(frozen=True)
class Done:
    """A verified output on the shelf.

    Attributes:
        fingerprint: fingerprint of the output.
        input_fingerprint: fingerprint of the inputs that it was made from.
        reused: whether it was on the shelf already.
    """

    fingerprint: str
    input_fingerprint: str
    reused: bool
    files: int
    size_bytes: int


@dataclass(frozen=True)
class OperatorResult:
    """The result of one operator; the keys are SeriesInstanceUIDs, or the cohort for a pooled operator.

    Attributes:
        failed: why a series failed, with the last lines of the operator's log.
        launches: number of launches.
        seconds: wall time of the operator, with all its launches.
        error: why the operator failed as a whole; empty if it did not.
        ended: whether the operator came to its end, so that this result is complete.
    """

    code_version: str
    done: dict[str, Done] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    launches: int = 0
    seconds: float = 0.0
    error: str = ""
    ended: bool = True

    def as_json(self) -> dict[str, Any]:
        """Return the result as the run's record holds it."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> OperatorResult:
        """Read the result from the run's record."""
        done = {key: Done(**value) for key, value in values["done"].items()}
        return OperatorResult(**{**values, "done": done})
