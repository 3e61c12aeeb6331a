"""What one run of a workflow works with, and what becomes of each operator in it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from kaapana_assets.containers.protocol import Runner
from kaapana_assets.stores.files.run_directory import RunDirectory
from kaapana_assets.stores.files.shelf import Shelf
from kaapana_assets.stores.objects.protocol import ObjectStore
from kaapana_assets.stores.pacs.protocol import Pacs
from kaapana_assets.tree_limits import Limits
from kaapana_assets.workflows.fingerprints import code_version
from kaapana_assets.workflows.model import Workflow
from kaapana_assets.workflows.operators import Operator
from kaapana_assets.workflows.parameters import Value

Mode = Literal["batch", "single"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked of a workflow; kept in conf.json of the run's record.

    Attributes:
        cohort: name of the cohort; empty for a backfill over series.
        series: SeriesInstanceUID -> data version of the series as it is worked on.
        missing: SeriesInstanceUID -> why it cannot be worked on.
        forgotten: how many series the cohort had that were forgotten.
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
        """For conf.json."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Request:
        """From conf.json, which has the keys of Kaapana beside these."""
        return Request(**{each.name: values[each.name] for each in fields(Request) if each.name in values})


@dataclass(frozen=True, kw_only=True)
class Stores:
    """The stores and the runner that a run uses, and how much at once.

    Attributes:
        series_per_launch: at most this many series for one launch in batch mode.
        parallel_series: series worked on at once in single mode.
        parallel_retrievals: series brought from the PACS at once.
        limits: how large one output may be.
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
        cancelled: set to end all operators that run.
    """

    workflow: Workflow
    request: Request
    directory: RunDirectory
    stores: Stores
    log: logging.Logger
    output: Callable[[str], None]
    cancelled: threading.Event = field(default_factory=threading.Event)

    def of(self, operator: Operator) -> OperatorRun:
        """One operator in this run."""
        return OperatorRun(**{each.name: getattr(self, each.name) for each in fields(RunContext)}, operator=operator)


@dataclass(frozen=True, kw_only=True)
class OperatorRun(RunContext):
    """One operator in one run of a workflow."""

    operator: Operator

    def code_version(self) -> str:
        """The version of all that the operator's outputs depend on but their input; see ``fingerprints``."""
        return code_version(self.workflow, self.operator, self.stores.runner, self.request.parameters)


@dataclass(frozen=True)
class Done:
    """A verified output on the shelf.

    Attributes:
        fingerprint: of the output.
        input_fingerprint: of what it was made from.
        reused: it was on the shelf already.
    """

    fingerprint: str
    input_fingerprint: str
    reused: bool
    files: int
    size_bytes: int


@dataclass(frozen=True)
class OperatorResult:
    """What became of one operator, by SeriesInstanceUID (or by cohort, for a pooled one).

    Attributes:
        failed: why, with the last lines of the operator's log.
        launches: how many containers were started.
        seconds: wall time, all launches included.
        error: why it could do nothing for any series; empty where it could.
        ended: whether it came to its end, so that this is all that became of it.
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
        """For the results folder of the run's record."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> OperatorResult:
        """From the results folder of the run's record."""
        done = {key: Done(**value) for key, value in values["done"].items()}
        return OperatorResult(**{**values, "done": done})
