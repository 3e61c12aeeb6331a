"""The client of Dagster's GraphQL API against a real webserver: what it answers, and how it refuses."""

import http.server
import threading
from collections.abc import Iterator

import pytest
import requests
import yaml

from kaapana_assets.errors import DagsterUnavailable, InputError, NotFound
from kaapana_assets.graphql import DagsterClient

pytestmark = pytest.mark.system

REFUSALS = {
    "run": (lambda client: client.run("no-such-run"), NotFound, "no-such-run"),
    "job": (lambda client: client.launch("no_such_job"), NotFound, "no_such_job"),
    "asset": (lambda client: client.partition_status("no/such"), NotFound, "no"),
    "materialization": (lambda client: client.latest_materialization("no/such"), NotFound, "no"),
    "config": (lambda client: client.launch("ingest", run_config={"nonsense": 1}), InputError, "nonsense"),
    "backfill": (lambda client: client.launch_backfill(["dicom_series"], ["no-such"]), NotFound, "no-such"),
}


@pytest.mark.parametrize(("ask", "error", "named"), REFUSALS.values(), ids=REFUSALS)
def test_what_dagster_refuses_is_the_right_error_and_names_it(platform, ask, error, named):
    with pytest.raises(error, match=named):
        ask(platform.dagster)


def test_a_partition_that_is_there_already_may_be_added_again(platform):
    for _ in range(2):
        platform.dagster.add_dynamic_partition("cohorts", "client-test")


def test_an_asset_never_made_has_no_materialization(platform):
    assert platform.dagster.latest_materialization("dicom_series", "1.2.3.4.5.6.7.8.9") is None


def test_reload_keeps_the_definitions(platform):
    platform.dagster.reload()
    assert platform.dagster.is_loaded()


def test_all_daemons_show_a_heartbeat(platform):
    assert platform.dagster.silent_daemons() == []


def test_launchpad_proposes_the_parameters_of_a_workflow_with_their_defaults(platform):
    query = """query ($selector: PipelineSelector!) {
      runConfigSchemaOrError(selector: $selector) { ... on RunConfigSchema { rootDefaultYaml } }
    }"""
    selector = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "kaapana_assets",
        "pipelineName": "download_selected_files",
    }
    answer = requests.post(
        f"{platform.record.dagster_url}/graphql", json={"query": query, "variables": {"selector": selector}}, timeout=60
    )
    proposed = yaml.safe_load(answer.json()["data"]["runConfigSchemaOrError"]["rootDefaultYaml"])
    first_step = proposed["ops"]["download_selected_files_cohort"]["ops"]["download_selected_files_prepare"]["config"]
    assert (first_step["mode"], first_step["force"]) == ("batch", False)
    assert first_step["parameters"] == {"patterns": "*.dcm", "zip": True, "bucket": "downloads"}


class NoDagster(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(502)
        self.end_headers()
        self.wfile.write(b"<html>bad gateway</html>")

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture
def no_dagster() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), NoDagster) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_answer_that_is_none_of_dagsters_says_so(no_dagster):
    with pytest.raises(DagsterUnavailable, match=no_dagster):
        DagsterClient(no_dagster).run("x")


def test_no_answer_asks_whether_the_platform_is_up(free_port):
    with pytest.raises(DagsterUnavailable, match="is the platform up"):
        DagsterClient(f"http://127.0.0.1:{free_port}").run("x")
