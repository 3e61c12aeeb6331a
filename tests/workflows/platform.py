"""A platform of a test whose workflows run through Dagster, in this process."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.code_pointer import FileCodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from kaapana_assets.cohorts.cohort import Cohort, list_digest, save
from kaapana_assets.defs.assembly import build_definitions
from kaapana_assets.defs.partitions import SERIES
from kaapana_assets.settings import load_settings
from kaapana_assets.workflows.launch_request import cohort_run_config

CHAIN = """
from kaapana_assets.workflows import ContainerOperator, Parameter, Workflow
copy = ContainerOperator(name="copy", image="copy", parameters=("level",))
last = ContainerOperator(name="last", image="last", input_operator=copy, parameters=())
pool = ContainerOperator(name="pool", image="pool", input_operator=last, level="cohort", parameters=())
chain = Workflow(name="my-chain", operators=(copy, last, pool), parameters=(Parameter("level", 1),)%s)
"""
POOL = (
    'mkdir -p "$WORKFLOW_DIR/$OPERATOR_OUT_DIR"\n'
    'ls "$WORKFLOW_DIR/$BATCH_NAME" > "$WORKFLOW_DIR/$OPERATOR_OUT_DIR/series.txt"\n'
)


@dataclass
class Platform:
    """The platform of a test, driven as Dagster's processes would."""

    place: Any
    instance: dg.DagsterInstance
    job_name: str = "my_chain"
    options: dict[str, Any] = field(default_factory=dict)

    def workflow(self, text: str) -> None:
        (self.place.home / "workflows" / "dags" / "chain.py").write_text(text)

    def cohort(self, name: str, series: Sequence[str]) -> None:
        digest = list_digest(tuple(series))
        save(self.place.home / "cohorts", Cohort(name, "*", "2026-01-01T00:00:00+00:00", tuple(series), digest))
        self.instance.add_dynamic_partitions("cohorts", [name])
        self.instance.add_dynamic_partitions("series", list(series))

    def job(self) -> dg.JobDefinition:
        return build_definitions(load_settings()).resolve_job_def(self.job_name)

    def run(self, cohort: str = "all", **config: Any) -> dg.ExecuteInProcessResult:
        return self.job().execute_in_process(
            instance=self.instance,
            partition_key=cohort,
            raise_on_error=False,
            run_config=cohort_run_config(self.job_name, config),
        )

    def backfill(self, operator: str, first: str, last: str) -> dg.ExecuteInProcessResult:
        whole = build_definitions(load_settings()).resolve_implicit_global_asset_job_def()
        job = whole.get_subset(asset_selection={dg.AssetKey([self.job_name, operator])})
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        return job.execute_in_process(instance=self.instance, tags=tags, raise_on_error=False)

    def status(self, operator: str, series: Sequence[str]) -> list[str]:
        """For each series: ``materialized``, ``failed`` or ``-``."""
        key = dg.AssetKey([self.job_name, operator])
        found = self.instance.get_status_by_partition(key, list(series), SERIES) or {}
        names = {AssetPartitionStatus.MATERIALIZED: "materialized", AssetPartitionStatus.FAILED: "failed"}
        return [names.get(found.get(uid), "-") for uid in series]

    def report(self, cohort: str = "all") -> dict[str, Any]:
        path = self.place.home / "assets" / self.job_name.replace("_", "-") / "report" / cohort / "report.json"
        return json.loads(path.read_text())

    def run_directories(self) -> list[Path]:
        folder = self.place.home / "workflows" / "data"
        return [path for path in folder.iterdir() if path.name != ".runs"]


def rerun(platform: Platform, run_id: str, cohort: str = "all") -> Any:
    """Re-execution from failure, as the web UI asks for it."""
    with dg.execute_job(
        _reconstructable(platform),
        instance=platform.instance,
        reexecution_options=dg.ReexecutionOptions.from_failure(run_id, platform.instance),
        tags={"dagster/partition": cohort},
    ) as result:
        return result


def _reconstructable(platform: Platform) -> Any:
    module = platform.place.home / "job_of_test.py"
    module.write_text(
        "from kaapana_assets.defs.assembly import build_definitions\n"
        "from kaapana_assets.settings import load_settings\n"
        f"def job():\n    return build_definitions(load_settings()).resolve_job_def({platform.job_name!r})\n"
    )
    pointer = FileCodePointer(str(module), "job", working_directory=str(platform.place.home))
    return ReconstructableJob(ReconstructableRepository(pointer), platform.job_name)
