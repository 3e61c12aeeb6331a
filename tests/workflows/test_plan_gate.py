"""A run's steps say why they refuse when the process that works them loaded other files; fast, in one process."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from kaapana_assets.containers.process.runner import ProcessRunner
from kaapana_assets.defs.assembly import build_definitions
from kaapana_assets.settings import Settings
from kaapana_assets.workflows.launch_request import cohort_run_config
from kaapana_assets.workflows.loader import load_workflow_files
from kaapana_assets.workflows.plan import PLAN_TAG, Plan

FILE = """
from kaapana_assets.workflows import ContainerOperator, Parameter, Workflow
old = ContainerOperator(name="old", image="copy")
pool = ContainerOperator(name="pool", image="copy", input_operator=old, level="cohort")
study = Workflow(name="a-study", operators=(old, pool), parameters=(Parameter("level", 1),))
"""


class Site:
    """A platform whose workflow file is edited between the launch of a run and its start."""

    def __init__(self, place, instance: dg.DagsterInstance) -> None:
        self.place, self.instance = place, instance
        self.file = place.home / "workflows" / "dags" / "study.py"
        self.settings = Settings(home=place.home, images=place.images, environments=place.environments)

    def plan(self) -> Plan:
        return load_workflow_files(self.place.home, ProcessRunner(self.place.images, self.place.environments)).plan

    def run(self, *, launched: Plan | None = None, **tags: str) -> dg.ExecuteInProcessResult:
        job = build_definitions(self.settings, launched=launched).resolve_job_def("a_study")
        config = {"mode": "single", "force": True, "parameters": {"level": 2}}
        return job.execute_in_process(
            instance=self.instance,
            partition_key="all",
            raise_on_error=False,
            tags=tags,
            run_config=cohort_run_config("a_study", config),
        )

    def reason(self, result: dg.ExecuteInProcessResult) -> str:
        assert not result.success
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        return str(failure.step_failure_data.error)


@pytest.fixture
def site(place, tmp_path: Path) -> Iterator[Site]:
    place.each("copy")
    (place.home / "workflows" / "dags").mkdir(parents=True)
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"telemetry": {"enabled": False}}) as instance:
        made = Site(place, instance)
        made.file.write_text(FILE)
        instance.add_dynamic_partitions("cohorts", ["all"])
        yield made


EDITS = {
    "operators-replaced": (FILE.replace('name="old"', 'name="new"'), "dags/study.py changed"),
    "parameter-gone": (FILE.replace('Parameter("level", 1),', ""), "dags/study.py changed"),
    "broken": ("def broken(:", "SyntaxError"),
    "removed": (None, "dags/study.py is gone"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_process_that_loaded_other_files_refuses_with_the_steps_of_the_run(site: Site, edit: str) -> None:
    launched = site.plan()
    text, said = EDITS[edit]
    site.file.unlink() if text is None else site.file.write_text(text)
    result = site.run(launched=launched)
    assert said in site.reason(result)
    assert "Nothing was done" in site.reason(result)
    assert [event.step_key for event in result.all_events if event.is_step_failure] == [
        "a_study_cohort.a_study_prepare"
    ]
    began = {event.step_key for event in result.all_events if event.is_step_start}
    assert began == {"a_study_cohort.a_study_prepare"}
    assert not site.place.starts()


def test_backfill_on_another_plan_is_refused_too(site: Site) -> None:
    launched = site.plan()
    site.file.write_text(FILE.replace('name="old"', 'name="new"'))
    whole = build_definitions(site.settings, launched=launched).resolve_implicit_global_asset_job_def()
    site.instance.add_dynamic_partitions("series", ["1.2"])
    result = whole.get_subset(asset_selection={dg.AssetKey(["a_study", "old"])}).execute_in_process(
        instance=site.instance, partition_key="1.2", raise_on_error=False
    )
    assert "dags/study.py changed" in site.reason(result)


def test_run_whose_launch_says_another_plan_is_refused(site: Site) -> None:
    assert "between its launch and its start" in site.reason(site.run(**{PLAN_TAG: "another"}))
