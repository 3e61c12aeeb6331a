"""Real servers: what they say of themselves, and what is said of those that are killed, hang or refuse."""

import json
import time

import psycopg2
import pytest
from health.conftest import all_stores_at
from services.plugin import service
from services.running import Running

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.health.findings import HealthState
from kaapana_assets.health.stores import check_before_start, store_checks
from kaapana_assets.operations.health import open_health_check
from kaapana_assets.supervision.postgres_server import check_server

pytestmark = pytest.mark.services

STORES = {"minio": "objects", "orthanc": "pacs", "elasticsearch": "index", "postgres": "storage"}


@pytest.fixture
def running(request) -> Running:
    return request.getfixturevalue(f"{request.param}_server")


@pytest.mark.parametrize("running", ["minio"], indirect=True)
def test_minio_says_its_name_and_its_buckets(running, settings_of):
    report = store_checks(settings_of(running.settings))["objects"]()
    assert (report.product, report.version) == ("MinIO", "")
    assert report.counts["buckets"] >= 0


@pytest.mark.parametrize("running", ["elasticsearch"], indirect=True)
def test_elasticsearch_says_its_version_and_nothing_is_made(running, settings_of):
    settings = settings_of(running.settings, KAAPANA_ELASTICSEARCH_INDEX="never-made")
    for _ in range(2):
        report = store_checks(settings)["index"]()
        assert report.product == "Elasticsearch"
        assert int(report.version.split(".")[0]) >= 8
        assert report.counts == {"documents": 0}


@pytest.mark.parametrize("running", ["orthanc"], indirect=True)
@pytest.mark.parametrize("pacs", ["dicomweb", "dimse"])
def test_orthanc_answers_a_search_and_for_dimse_an_echo(running, settings_of, pacs):
    report = store_checks(settings_of(running.settings, KAAPANA_PACS=pacs))["pacs"]()
    assert report.product
    assert report.counts == {}


@pytest.mark.parametrize("running", ["postgres"], indirect=True)
def test_postgres_is_asked_without_a_platform(running, settings_of):
    report = open_health_check(settings_of(running.settings, KAAPANA_RECEIVER_PORT="0")).report()
    assert report.ok
    assert report.findings["storage"].product.startswith("PostgreSQL ")


REFUSED = {
    "MinIO, wrong secret": ("minio", "objects", {"KAAPANA_S3_SECRET_KEY": "hidden-word"}, "KAAPANA_S3_SECRET_KEY"),
    "MinIO, wrong user": ("minio", "objects", {"KAAPANA_S3_ACCESS_KEY": "nobody"}, "KAAPANA_S3_ACCESS_KEY"),
    "MinIO by TLS": ("minio", "objects", {"KAAPANA_S3_SECURE": "true"}, "KAAPANA_S3_SECURE"),
    "Orthanc, wrong password": (
        "orthanc", "pacs", {"KAAPANA_DICOMWEB_PASSWORD": "hidden-word"}, "KAAPANA_DICOMWEB_PASSWORD",
    ),
    "Elasticsearch by TLS": ("elasticsearch", "index", {"https": "yes"}, "KAAPANA_ELASTICSEARCH_"),
}  # fmt: skip


@pytest.mark.parametrize(("running", "store", "changed", "named"), REFUSED.values(), ids=REFUSED, indirect=["running"])
def test_what_can_never_work_names_its_setting_and_no_secret(running, settings_of, store, changed, named):
    variables = running.settings | changed
    if variables.pop("https", ""):
        url = variables["KAAPANA_ELASTICSEARCH_URLS"].replace("http:", "https:")
        variables["KAAPANA_ELASTICSEARCH_URLS"] = url
    settings = settings_of(variables)
    with pytest.raises(ConfigurationError, match=named) as caught:
        store_checks(settings)[store]()
    assert "hidden-word" not in str(caught.value)
    with pytest.raises(ConfigurationError, match=f"{store}: .*{named}"):
        check_before_start(settings, lambda _: None)


@pytest.mark.parametrize("running", ["orthanc"], indirect=True)
def test_a_server_of_another_kind_is_a_wrong_address(running, settings_of):
    port = running.ports[0]
    checks = store_checks(settings_of(all_stores_at(port)))
    with pytest.raises(ConfigurationError, match="KAAPANA_S3_ENDPOINT"):
        checks["objects"]()
    with pytest.raises(ConfigurationError, match=r"KAAPANA_ELASTICSEARCH_URLS|KAAPANA_ELASTICSEARCH_API_KEY"):
        checks["index"]()


@pytest.mark.parametrize("running", ["minio", "elasticsearch"], indirect=True)
def test_a_server_that_is_no_archive_is_a_wrong_address(running, settings_of):
    url = f"http://127.0.0.1:{running.ports[0]}/dicom-web"
    settings = settings_of(KAAPANA_PACS="dicomweb", KAAPANA_DICOMWEB_URL=url)
    with pytest.raises(ConfigurationError, match="KAAPANA_DICOMWEB_"):
        store_checks(settings)["pacs"]()


@pytest.mark.parametrize("running", ["orthanc"], indirect=True)
def test_an_archive_at_another_path_is_a_wrong_address(running, settings_of):
    url = running.settings["KAAPANA_DICOMWEB_URL"].replace("dicom-web", "somewhere")
    settings = settings_of(running.settings, KAAPANA_DICOMWEB_URL=url)
    with pytest.raises(ConfigurationError, match="KAAPANA_DICOMWEB_URL="):
        store_checks(settings)["pacs"]()


@pytest.mark.parametrize("name", STORES)
def test_a_server_that_hangs_or_is_killed_is_broken_and_works_again_when_it_is_back(name, settings_of, tmp_path):
    with service(name, tmp_path / "server") as running:
        settings = settings_of(running.settings, KAAPANA_RECEIVER_PORT="0")
        check = open_health_check(settings)
        assert check.report().ok

        running.pause()
        began = time.monotonic()
        report = check.report()
        seconds = time.monotonic() - began
        running.resume()
        assert report.broken == [STORES[name]]
        assert seconds < 7
        wait_until_ok(check)

        running.kill()
        report = check.report()
        assert report.broken == [STORES[name]]
        assert_no_secret(report, running)
        said: list[str] = []
        check_before_start(settings, said.append)
        if name != "postgres":
            (line,) = said
            assert "does not answer; work waits until it does" in line

        running.start()
        wait_until_ok(check)


def wait_until_ok(check) -> None:
    deadline = time.monotonic() + 60
    while not (report := check.report()).ok:
        assert time.monotonic() < deadline, report.as_json()
        time.sleep(0.5)


def assert_no_secret(report, running: Running) -> None:
    said = json.dumps(report.as_json())
    for setting, value in running.settings.items():
        if setting.endswith(("PASSWORD", "SECRET_KEY")):
            assert value not in said


@pytest.mark.parametrize("running", ["postgres"], indirect=True)
def test_postgres_refuses_a_wrong_password_and_says_so(running, settings_of):
    settings = settings_of(running.settings, KAAPANA_POSTGRES_PASSWORD="hidden-word")
    with pytest.raises(ConfigurationError, match="KAAPANA_POSTGRES_PASSWORD") as caught:
        check_server(settings)
    assert "hidden-word" not in str(caught.value)
    finding = open_health_check(settings).report().findings["storage"]
    assert finding.state is HealthState.BROKEN
    assert isinstance(caught.value.__cause__, psycopg2.Error)


def test_a_wrong_key_ends_up_before_anything_is_started(minio_server, kaapana, home):
    done = kaapana(
        "up", **minio_server.settings | {"KAAPANA_S3_SECRET_KEY": "hidden-word", "KAAPANA_HEALTH_PORT": "0"},
        KAAPANA_WEBSERVER_PORT="0",
    )  # fmt: skip
    assert done.returncode == 2
    assert "KAAPANA_S3_SECRET_KEY" in done.stderr
    assert "hidden-word" not in done.stdout + done.stderr
    assert not (home / "platform.json").exists()
    assert not (home / "logs").exists()
