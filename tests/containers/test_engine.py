"""What is promised of an engine, without one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kaapana_assets.containers.docker.runner import DockerRunner
from kaapana_assets.errors import ConfigurationError
from kaapana_assets.workflows.loader import load_workflow_files

IMAGES = 20
DAG = f"""
from kaapana_assets.workflows import ContainerOperator, Workflow

operators = tuple(ContainerOperator(name=f"o{{n}}", image=f"localhost/o{{n}}:1") for n in range({IMAGES}))
many = Workflow(name="many", operators=operators)
"""


def test_an_engine_that_stays_away_is_waited_for_once_for_all_images(tmp_path: Path) -> None:
    dags = tmp_path / "workflows" / "dags"
    dags.mkdir(parents=True)
    (dags / "many.py").write_text(DAG)
    patience_s = 2.0
    runner = DockerRunner(tmp_path, url=f"unix://{tmp_path}/none.sock", uid=1000, own_uid=0, patience_s=patience_s)
    began = time.monotonic()
    loaded = load_workflow_files(tmp_path, runner)
    took_s = time.monotonic() - began
    assert "no container engine answers" in loaded.problems["many.py"]
    assert patience_s <= took_s < IMAGES * patience_s / 2


def test_only_root_can_have_operators_of_another_user(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="KAAPANA_OPERATOR_UID=1000"):
        DockerRunner(tmp_path, url="unix:///x", uid=1000, own_uid=1001)
    assert not DockerRunner(tmp_path, url="unix:///x", uid=1001, own_uid=1001).isolates
