"""Forgetting removes the objects of what is forgotten, whatever an operator says is its."""

import json
from pathlib import Path

import pytest

from kaapana_assets.forgetting.results import objects_location
from kaapana_assets.stores.files.shelf import Origin, Shelf
from kaapana_assets.stores.forgotten import Forgetting
from kaapana_assets.stores.objects.folder import FolderObjects

FORGOTTEN, OTHER = "1.2.3.1", "1.2.3.10"
ORIGIN = Origin(workflow="w", operator="put", run="w-1", dagster_run_id="r", created="2026-01-01T00:00:00+00:00")


@pytest.mark.parametrize("partition", [FORGOTTEN, "cohort"])
def test_object_of_another_series_that_an_operator_lists_stays(tmp_path: Path, partition: str):
    objects, shelf = FolderObjects(tmp_path / "objects"), Shelf(tmp_path / "assets")
    (tmp_path / "file").write_text("x")
    own, foreign = f"{partition}/own.nrrd", f"{OTHER}/other.nrrd"
    for name in (own, foreign):
        objects.put_file("results", name, tmp_path / "file")
    output = tmp_path / "output"
    output.mkdir()
    (output / "objects.json").write_text(json.dumps([{"bucket": "results", "name": name} for name in (own, foreign)]))
    shelf.publish(ORIGIN, {partition: (output, "f")})
    pooled = (("w", "put", "cohort"),) if partition == "cohort" else ()
    forgetting = Forgetting(
        id="1",
        kind="series",
        asked_by="me",
        asked="2026-01-01T00:00:00+00:00",
        series=(FORGOTTEN,),
        pooled=pooled,
    )
    place = objects_location(objects, shelf, forgetting)
    assert place.count() == 1
    assert place.clear() == []
    assert [item.name for item in objects.list("results")] == [foreign]
