"""Several inputs of an operator in cohort runs, backfills and re-executions, and their lineage."""

import dagster as dg
import pytest
from workflows.platform import Platform, rerun

from kaapana_assets.defs.assembly import build_definitions
from kaapana_assets.settings import load_settings

FLOW = """
from kaapana_assets.workflows import INITIAL_INPUT, ContainerOperator, Workflow, folder_of
copy = ContainerOperator(name="copy", image="copy")
other = ContainerOperator(name="other", image="copy")
both = ContainerOperator(
    name="both", image="both", input_operator=copy, inputs=(other, INITIAL_INPUT),
    env_vars={"OTHER": folder_of(other), "DICOM": folder_of(INITIAL_INPUT)},
)
pool = ContainerOperator(name="pool", image="pool", input_operator=both, inputs=(copy, INITIAL_INPUT), level="cohort")
flow = Workflow(name="my-chain", operators=(copy, other, both, pool))
"""
BOTH = 'cat "$in"/* "$folder/$OTHER"/* "$folder/$DICOM"/* > "$out/all.bin" || exit 3'
POOL = (
    'cd "$WORKFLOW_DIR"; mkdir "$OPERATOR_OUT_DIR"\n'
    'for folder in batch/*; do ls -d "$folder"/* >> "$OPERATOR_OUT_DIR/seen.txt"; done\n'
)


@pytest.fixture
def flow(platform: Platform) -> Platform:
    platform.workflow(FLOW)
    platform.place.each("both", BOTH)
    platform.place.image("pool", POOL)
    return platform


def pooled(flow: Platform) -> list[str]:
    return (flow.place.shelf.entry("my-chain", "pool", "all") / "seen.txt").read_text().split()


def forget(flow: Platform, operator: str, *partitions: str) -> None:
    """Makes an operator be run again, on inputs that are all reused."""
    for partition in partitions:
        (flow.place.shelf.entry("my-chain", operator, partition) / ".manifest.json").unlink()


@pytest.mark.parametrize("mode", ["batch", "single"])
def test_second_run_finds_all_inputs_on_the_shelf(flow: Platform, mode: str) -> None:
    series = flow.place.series("1", "2")
    flow.cohort("all", series)
    seen = []
    for _ in range(2):
        assert flow.run(mode=mode).success
        assert flow.status("both", series) == ["materialized"] * 2
        seen.append(pooled(flow))
        forget(flow, "both", *series)
        forget(flow, "pool", "all")
    assert seen[0] == seen[1]
    assert seen[0] == [f"batch/{uid}/{folder}" for uid in series for folder in ("both", "copy", "initial-input")]


def test_backfill_finds_all_inputs_on_the_shelf_and_says_which_is_not_there(flow: Platform) -> None:
    series = flow.place.series("1", "2")
    flow.cohort("all", series)
    assert flow.backfill("copy", series[0], series[1]).success
    result = flow.backfill("both", series[0], series[1])
    failure = next(e for e in result.all_events if e.is_step_failure).step_failure_data.error
    assert "its input is not there: no other" in str(failure)
    assert flow.backfill("other", series[0], series[1]).success
    for _ in range(2):
        assert flow.backfill("both", series[0], series[1]).success
        forget(flow, "both", *series)


def test_re_execution_finds_all_inputs(flow: Platform) -> None:
    mended = flow.place.home / "mended"
    flow.place.each("both", f'test -e "{mended}" || exit 1; {BOTH}')
    series = flow.place.series("1", "2")
    flow.cohort("all", series)
    for run in range(2):
        first = flow.run()
        assert not first.success
        mended.touch()
        assert rerun(flow, first.run_id).success
        assert len(pooled(flow)) == 6
        mended.unlink()
        if not run:
            forget(flow, "both", *series)
            forget(flow, "pool", "all")


def test_every_input_is_in_the_lineage_and_in_the_versions_of_what_was_made(flow: Platform) -> None:
    (uid,) = flow.place.series("1")
    flow.cohort("all", [uid])
    assert flow.run().success
    graph = build_definitions(load_settings()).resolve_asset_graph()
    dicom = dg.AssetKey("dicom_series")
    copy, other, both, pool = (dg.AssetKey(["my_chain", name]) for name in ("copy", "other", "both", "pool"))
    assert graph.get(both).parent_keys == {copy, other, dicom}
    assert {both, copy, dicom} <= graph.get(pool).parent_keys
    event = flow.instance.get_latest_materialization_event(both).asset_materialization
    versions = {name: value for name, value in event.tags.items() if "input_data_version" in name}
    assert versions == {
        f"dagster/input_data_version/my_chain/{name}": flow.place.shelf.manifest("my-chain", name, uid).fingerprint
        for name in ("copy", "other")
    } | {"dagster/input_data_version/dicom_series": flow.place.pacs.series(uid).digest}
