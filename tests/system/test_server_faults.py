"""The platform on real servers that are killed, hang and come back in the middle of ingest and of a workflow."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from services.plugin import service
from services.proxy import fault_proxy
from services.running import Running
from system.series import write_image, write_series

from kaapana_assets.errors import DagsterUnavailable
from kaapana_assets.settings import load_settings
from kaapana_assets.stores.factory import open_index, open_objects, open_pacs
from kaapana_assets.stores.query import Term

pytestmark = [pytest.mark.system, pytest.mark.services]

NAMES = ("elasticsearch", "minio", "orthanc", "postgres")
FINDINGS = {"elasticsearch": "index", "minio": "objects", "orthanc": "pacs", "postgres": "storage"}
WAITS = {"orthanc": "the archive", "minio": "S3 at", "postgres": "Dagster's PostgreSQL"}

WORKFLOW = """
from kaapana_assets.workflows import ContainerOperator, Workflow, put_objects

names = ContainerOperator(name="names", image="names", output_patterns=("names.txt",), env_vars={"GATE": %r})
put = put_objects(bucket="names", input_operator=names, name="put")
workflow = Workflow(name="on-servers", operators=(names, put))
"""

OPERATOR = '''
"""Writes the names of each series' files, once the gate is open."""
import os, time
from pathlib import Path

run = Path("/", os.environ["WORKFLOW_DIR"])
gate = Path(os.environ["GATE"])
gate.with_name("waiting").touch()
while not gate.exists():
    time.sleep(0.05)
for series in sorted((run / os.environ["BATCH_NAME"]).iterdir()):
    out = series / os.environ["OPERATOR_OUT_DIR"]
    out.mkdir()
    names = sorted(path.name for path in (series / os.environ["OPERATOR_IN_DIR"]).iterdir())
    (out / "names.txt").write_text(chr(10).join(names))
'''


class Site:
    """A platform whose stores are all servers, and the servers."""

    def __init__(self, platform, servers: dict[str, Running], gate: Path, folder: Path):
        self.platform, self.servers, self.gate, self.folder = platform, servers, gate, folder
        given = {key.removeprefix("KAAPANA_").lower(): value for key, value in self.environment().items()}
        settings = load_settings(**{**given, "home": platform.home})
        self.pacs, self.index, self.objects = open_pacs(settings), open_index(settings), open_objects(settings)

    def environment(self) -> dict[str, str]:
        return {key: value for server in self.servers.values() for key, value in server.settings.items()}

    def send(self, mark: str, *, count: int) -> list[str]:
        """Sends series over the network; on return all are acknowledged."""
        folder = self.folder / mark
        series = [write_series(folder, instances=3, SeriesDescription=mark) for _ in range(count)]
        self.platform.kaapana("send", folder)
        return sorted(series)

    def made(self, series: list[str]) -> int:
        """How many of them are assets by now."""
        try:
            return len(set(series) & self.platform.dagster.partition_status("series_metadata").materialized)
        except DagsterUnavailable:
            return 0

    def assert_all_there_once(self, series: list[str], mark: str) -> None:
        for uid in series:
            stored = self.pacs.series(uid)
            assert [each.sop_instance_uid for each in stored.instances] == [f"{uid}.{number}" for number in (1, 2, 3)]
        assert list(self.index.series(Term("SeriesDescription", mark))) == series
        spool = self.spool()
        assert (spool["series"], spool["quarantined"]) == (0, 0)

    def findings(self) -> dict:
        """What ``kaapana-assets status`` finds, by name."""
        return json.loads(self.platform.kaapana("status", "--json", check=False).stdout)["findings"]

    def spool(self) -> dict:
        """What waits."""
        return self.findings()["spool"]["counts"]

    def is_away(self, victim: str) -> bool:
        return self.findings()[FINDINGS[victim]]["state"] == "broken"

    def run_says(self, victim: str, said: str) -> bool:
        """Whether what a run printed tells that it waits; Dagster cannot be asked while its storage is away."""
        logs = self.platform.home / "dagster" / "compute_logs"
        folders = [path for path in logs.iterdir() if path.name in said]
        printed = "".join(path.read_text() for folder in folders for path in folder.rglob("*.err"))
        return WAITS[victim] in printed


@pytest.fixture(scope="module")
def site(module_platforms, tmp_path_factory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("on-servers")
    images = folder / "images"
    write_image(images, "names", OPERATOR)
    with ExitStack() as stack:
        servers = {name: stack.enter_context(service(name, folder / name)) for name in NAMES}
        home = module_platforms.new_home()
        dags = home / "workflows" / "dags"
        dags.mkdir(parents=True)
        (dags / "on_servers.py").write_text(WORKFLOW % str(folder / "gate"))
        given = {key: value for server in servers.values() for key, value in server.settings.items()}
        platform = module_platforms.start(home, KAAPANA_IMAGES=str(images), **given)
        yield Site(platform, servers, folder / "gate", folder)
        module_platforms.end()


@pytest.mark.parametrize("how", ["kill", "pause"])
@pytest.mark.parametrize("victim", ["elasticsearch", "orthanc", "postgres"])
def test_a_server_that_goes_away_during_ingest_loses_nothing_and_repeats_nothing(site, victim, how):
    mark = f"ingest-{victim}-{how}"
    series = site.send(mark, count=25)
    site.platform.wait_until(lambda: site.index.count(Term("SeriesDescription", mark)) > 2, 90, "ingest to begin")

    server = site.servers[victim]
    getattr(server, how)()
    site.platform.wait_until(lambda: site.is_away(victim), 60, "the platform to notice")
    server.start() if how == "kill" else server.resume()

    site.platform.wait_until(lambda: site.made(series) == len(series), 240, "all series as assets")
    site.platform.wait_until(lambda: site.spool()["series"] == 0, 60, "empty spool")
    site.assert_all_there_once(series, mark)


@pytest.mark.parametrize("victim", ["orthanc", "minio", "postgres"])
def test_a_server_that_goes_away_during_a_workflow_is_waited_for_and_the_run_says_so(site, victim):
    mark = f"workflow-{victim}"
    series = site.send(mark, count=4)
    site.platform.wait_until(lambda: site.made(series) == len(series), 120, "all series as assets")
    site.platform.kaapana("cohort", "create", mark, "--query", f'SeriesDescription:"{mark}"')
    site.gate.unlink(missing_ok=True)
    waiting = site.gate.with_name("waiting")
    waiting.unlink(missing_ok=True)
    server = site.servers[victim]
    if victim == "orthanc":  # it is asked for files at the beginning
        server.kill()
        site.gate.touch()
    said = site.platform.kaapana("run", "on-servers", "--cohort", mark, "--batch", "--no-wait").stdout
    if victim != "orthanc":
        site.platform.wait_until(waiting.exists, 60, "the operator")
        server.kill()
        site.gate.touch()
    site.platform.wait_until(lambda: site.is_away(victim) and site.run_says(victim, said), 120, "the run to wait")
    server.start()
    run = next(each for each in site.platform.dagster.runs(job="on_servers", limit=5) if each.run_id in said)
    ended = site.platform.dagster.wait(run.run_id, timeout_s=240)

    assert ended.status == "SUCCESS", site.platform.dagster.failures(run.run_id)
    listed = sorted(each.name for each in site.objects.list("names"))
    for uid in series:
        assert [name for name in listed if uid in name] != []
        assert len([name for name in listed if uid in name]) == 1
    events, _, _ = site.platform.dagster.events(run.run_id)
    waited = "\n".join(event.message for event in events)
    assert WAITS[victim] in waited


def test_connections_that_are_cut_and_slow_only_cost_time(platforms, site, tmp_path):
    """The whole way through proxies that delay each piece and cut connections after some bytes."""
    with ExitStack() as stack:
        proxies = {}
        given = site.environment()
        for name, setting in (
            ("elasticsearch", "KAAPANA_ELASTICSEARCH_URLS"),
            ("orthanc", "KAAPANA_DICOMWEB_URL"),
            ("minio", "KAAPANA_S3_ENDPOINT"),
        ):
            port = site.servers[name].ports[0]
            proxies[name] = stack.enter_context(fault_proxy(port))
            given[setting] = given[setting].replace(str(port), str(proxies[name].port))
        given["KAAPANA_ELASTICSEARCH_INDEX"] = "through-proxies"
        given["KAAPANA_POSTGRES_URL"] = ""
        given["KAAPANA_POSTGRES_PASSWORD"] = ""
        images = tmp_path / "images"
        write_image(images, "names", OPERATOR)
        home = platforms.new_home()
        dags = home / "workflows" / "dags"
        dags.mkdir(parents=True)
        (dags / "on_servers.py").write_text(WORKFLOW % str(tmp_path / "gate"))
        (tmp_path / "gate").touch()
        behind = Site(
            platforms.start(home, KAAPANA_IMAGES=str(images), **given), site.servers, tmp_path / "gate", tmp_path
        )
        behind.index = open_index(
            load_settings(
                home=home,
                index="elasticsearch",
                elasticsearch_urls=site.servers["elasticsearch"].settings["KAAPANA_ELASTICSEARCH_URLS"],
                elasticsearch_index="through-proxies",
            )
        )
        for proxy in proxies.values():
            proxy.delay_s = 0.01
            proxy.cuts.extend([200, 0, 900, 40, 3000] * 2)
        series = behind.send("cut", count=8)
        behind.platform.wait_until(lambda: behind.made(series) == len(series), 240, "all series as assets")
        behind.assert_all_there_once(series, "cut")
        behind.platform.kaapana("cohort", "create", "cut", "--query", "SeriesDescription:cut")
        for proxy in proxies.values():
            proxy.cuts.extend([200, 0, 900, 40, 3000])
        behind.platform.kaapana("run", "on-servers", "--cohort", "cut", "--batch")
        listed = [each.name for each in behind.objects.list("names")]
        assert all(len([name for name in listed if uid in name]) == 1 for uid in series)
        assert all(proxy.connections for proxy in proxies.values())
