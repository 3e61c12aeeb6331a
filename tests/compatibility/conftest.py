"""A platform in a temporary folder whose operators are images in the manner of Kaapana's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from workflows.conftest import write_dicom

from kaapana_assets.cohorts.cohort import Cohort, list_digest, save
from kaapana_assets.defs.assembly import build_definitions
from kaapana_assets.settings import load_settings
from kaapana_assets.stores.pacs.folder import FolderPacs
from kaapana_assets.workflows.launch_request import cohort_run_config

IMAGES = Path(__file__).parent / "images"


@dataclass
class Platform:
    """Runs workflows of a cohort of two series, as Dagster's processes would."""

    home: Path
    images: Path
    instance: dg.DagsterInstance
    series: tuple[str, ...] = ("1.2.3.1", "1.2.3.2")

    def fill(self) -> None:
        for number, uid in enumerate(self.series, start=1):
            files = [
                write_dicom(self.home / "sent" / uid / f"{at}.dcm", series=uid, instance=at)
                for at in range(1, number + 2)
            ]
            FolderPacs(self.home / "archive").store(files)
        save(self.home / "cohorts", Cohort("all", "*", "2026-01-01", self.series, list_digest(self.series)))
        self.instance.add_dynamic_partitions("cohorts", ["all"])
        self.instance.add_dynamic_partitions("series", list(self.series))

    def workflow(self, text: str) -> None:
        dags = self.home / "workflows" / "dags"
        dags.mkdir(parents=True, exist_ok=True)
        (dags / "flow.py").write_text(text)

    def run(self, **config: Any) -> dict[str, dict[str, Any]]:
        """The rows of the report by operator, of a run that succeeds."""
        job = build_definitions(load_settings()).resolve_job_def("flow")
        ran = job.execute_in_process(
            instance=self.instance,
            partition_key="all",
            raise_on_error=False,
            run_config=cohort_run_config("flow", config),
        )
        report = json.loads(self.output("report", "all", "report.json"))
        assert ran.success, report["failed"]
        return {row["operator"]: row for row in report["operators"]}

    def output(self, operator: str, partition: str, name: str) -> str:
        return (self.home / "assets" / "flow" / operator / partition / name).read_text()


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    home, images = tmp_path / "home", tmp_path / "images"
    shutil.copytree(IMAGES, images)
    monkeypatch.setenv("KAAPANA_HOME", str(home))
    monkeypatch.setenv("KAAPANA_IMAGES", str(images))
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"telemetry": {"enabled": False}}) as instance:
        made = Platform(home, images, instance)
        made.fill()
        yield made
