"""Secrets are where they are needed, and nowhere else: not in other processes, files, logs, pages or messages."""

import base64
import contextlib
import json
import os
import subprocess
import sys
import traceback
import urllib.parse
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest
import requests
from pydantic import SecretStr
from services.plugin import service
from system.conftest import RunningPlatform, module_platforms  # noqa: F401 - a fixture
from system.series import write_image, write_series

from kaapana_assets.backups.databases import served
from kaapana_assets.containers.process.runner import ProcessRunner
from kaapana_assets.containers.protocol import Launch
from kaapana_assets.errors import ConfigurationError
from kaapana_assets.settings import Settings, load_settings, take_environment
from kaapana_assets.supervision.needs import NEEDS, given_to
from kaapana_assets.withheld import DATABASE_SECRETS, SECRETS, STORE_SECRETS, WITHHELD, without_secrets

OF_POSTGRES = {"PGPASSWORD", "PGSSLPASSWORD"}
SERVERS = {
    "KAAPANA_PACS": "dicomweb",
    "KAAPANA_DICOMWEB_URL": "http://127.0.0.1:1/dicom-web",
    "KAAPANA_DICOMWEB_USER": "user",
    "KAAPANA_DICOMWEB_PASSWORD": "planted-dicomweb",
    "KAAPANA_INDEX": "elasticsearch",
    "KAAPANA_ELASTICSEARCH_URLS": "http://127.0.0.1:1",
    "KAAPANA_ELASTICSEARCH_USER": "user",
    "KAAPANA_ELASTICSEARCH_PASSWORD": "planted-elasticsearch",
    "KAAPANA_OBJECTS": "s3",
    "KAAPANA_S3_ENDPOINT": "127.0.0.1:1",
    "KAAPANA_S3_ACCESS_KEY": "planted-access",
    "KAAPANA_S3_SECRET_KEY": "planted-secret",
    "KAAPANA_POSTGRES_URL": "postgresql://user@127.0.0.1:1/dagster",
    "KAAPANA_POSTGRES_PASSWORD": "planted-postgres",
    "KAAPANA_IMAGE_PULL_SECRETS": '{"site": {"auths": {"registry.example": {"auth": "planted-registry"}}}}',
}


@pytest.fixture
def empty_environment(monkeypatch, tmp_path) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("KAAPANA_") or name in SECRETS]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def test_every_secret_setting_is_known_as_one():
    """What is not in the table is given to no process but by mistake to all."""
    fields = Settings.model_fields.items()
    assert {f"KAAPANA_{name.upper()}" for name, field in fields if field.annotation is SecretStr} == (
        SECRETS - OF_POSTGRES
    )


GIVEN = {
    "postgres": set(),
    "receiver": set(),
    "watchdog": set(),
    "abandoned-runs": DATABASE_SECRETS,
    "migration": DATABASE_SECRETS,
    "forgetting": DATABASE_SECRETS | STORE_SECRETS,
    "webserver": DATABASE_SECRETS,
    "daemon": DATABASE_SECRETS,
    "health": DATABASE_SECRETS | STORE_SECRETS,
    "code-server": DATABASE_SECRETS | STORE_SECRETS,
}


@pytest.mark.parametrize("part", NEEDS)
def test_a_process_gets_only_the_secrets_that_it_needs_and_its_settings_hold(part, empty_environment):
    every = dict.fromkeys(SECRETS, "") | SERVERS | {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x"}
    given = given_to(part, every)
    assert given.keys() & SECRETS == GIVEN[part]
    assert (given["PATH"], given["KAAPANA_PACS"]) == ("/bin", "dicomweb")
    assert ("AWS_SECRET_ACCESS_KEY" in given) == (part not in ("postgres", "receiver", "watchdog"))
    for name, value in given.items():
        empty_environment.setenv(name, value)
    settings = load_settings()
    assert settings.dicomweb_user == "user"
    # What such a process starts gets no more than it has.
    assert without_secrets(given, keep=SECRETS).keys() & SECRETS == GIVEN[part]


def test_settings_that_lack_a_secret_are_refused_where_none_was_withheld(empty_environment):
    for name, value in SERVERS.items():
        empty_environment.setenv(name, value)
    empty_environment.delenv("KAAPANA_S3_SECRET_KEY")
    with pytest.raises(ConfigurationError, match="KAAPANA_S3_SECRET_KEY"):
        load_settings()
    empty_environment.setenv(WITHHELD, "KAAPANA_S3_SECRET_KEY")
    load_settings()


def test_a_process_does_not_fetch_what_was_withheld_from_the_file_of_settings(empty_environment, tmp_path):
    file = tmp_path / "servers.env"
    file.write_text("KAAPANA_S3_SECRET_KEY=planted\nKAAPANA_S3_REGION=here\n")
    file.chmod(0o600)
    empty_environment.setenv(WITHHELD, "KAAPANA_S3_SECRET_KEY")
    empty_environment.setenv("KAAPANA_S3_REGION", "")
    empty_environment.delenv("KAAPANA_S3_REGION")
    take_environment(file)
    assert "KAAPANA_S3_SECRET_KEY" not in os.environ
    assert os.environ["KAAPANA_S3_REGION"] == "here"


POSTGRES, ELASTICSEARCH = "KAAPANA_POSTGRES_PASSWORD", "KAAPANA_ELASTICSEARCH_PASSWORD"
DICOMWEB = "KAAPANA_DICOMWEB_PASSWORD"
ADDRESSES = {
    "POSTGRES_URL": {
        "postgresql://user:planted@host/db": POSTGRES,
        "postgresql://user:pla/planted@host/db": POSTGRES,
        "postgresql://user:pla?planted@host/db": "POSTGRES_URL",
        "postgresql://user:1/planted?planted@host/db": "POSTGRES_URL",
        "postgresql://user:pla#planted@host/db": "POSTGRES_URL",
        "postgresql://user:pla@planted@host/db": POSTGRES,
        "postgresql://:planted@host/db": POSTGRES,
        "postgresql://user@host/db?password=planted": POSTGRES,
        "postgresql://user@host/db?sslmode=require&PASSWORD=planted": POSTGRES,
        "postgresql://user@host/db?pass%77ord=planted": POSTGRES,
        "postgresql://user@host/db?sslpassword=planted": POSTGRES,
        "postgresql://host:planted/db": "POSTGRES_URL",
        "user:planted@host": "POSTGRES_URL",
        "postgresql+psycopg2://user:planted@host/db": POSTGRES,
    },
    "ELASTICSEARCH_URLS": {
        "https://user:planted@host:9200": ELASTICSEARCH,
        "https://ok:9200,https://user:planted@host:9200": ELASTICSEARCH,
        "https://user:pla/planted@host:9200": ELASTICSEARCH,
        "https://user:pla#planted@host:9200": ELASTICSEARCH,
        "user:planted@host:9200": ELASTICSEARCH,
        "https://planted@host:9200": ELASTICSEARCH,
        "https://host:planted": "ELASTICSEARCH_URLS",
        "https://host:9200?api_key=planted": "ELASTICSEARCH_URLS",
        "https://host:9200/#planted": "ELASTICSEARCH_URLS",
    },
    "DICOMWEB_URL": {
        "https://user:planted@host/dicom-web": DICOMWEB,
        "https://user:pla/planted@host/dicom-web": DICOMWEB,
        "user:planted@host/dicom-web": DICOMWEB,
        "https://host:planted/dicom-web": "DICOMWEB_URL",
        "https://host/dicom-web?token=planted": "DICOMWEB_URL",
        "https://host/dicom-web#planted": "DICOMWEB_URL",
    },
    "S3_ENDPOINT": {
        "planted:planted@host:9000": "S3_ENDPOINT",
        "https://host:9000/?secret=planted": "S3_ENDPOINT",
        "host:9000?secret=planted": "S3_ENDPOINT",
    },
    "DOCKER_URL": {
        "tcp://user:planted@host:2376": "DOCKER_URL",
        "https://user:planted@host": "DOCKER_URL",
        "https://host?token=planted": "DOCKER_URL",
    },
    "IMAGE_REGISTRY": {"user:planted@registry.example": "IMAGE_REGISTRY"},
    "ALLOWED_HOSTS": {"user:planted@pacs.example": "ALLOWED_HOSTS"},
}
CASES = [(name, value, named) for name, values in ADDRESSES.items() for value, named in values.items()]


@pytest.mark.parametrize(("name", "value", "named"), CASES, ids=[f"{name} {value}" for name, value, _ in CASES])
def test_an_address_with_a_secret_is_refused_without_showing_it(empty_environment, name, value, named):
    empty_environment.setenv(f"KAAPANA_{name}", value)
    with pytest.raises(ConfigurationError, match=f"KAAPANA_{name}") as refused:
        load_settings()
    assert named in str(refused.value)
    assert "planted" not in "".join(traceback.format_exception(refused.value))


def test_settings_that_exclude_each_other_are_refused_without_showing_them(empty_environment):
    for name, value in (SERVERS | {"KAAPANA_DICOMWEB_TOKEN": "planted-token"}).items():
        empty_environment.setenv(name, value)
    with pytest.raises(ConfigurationError, match="exclude each other") as refused:
        load_settings()
    assert "planted" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POSTGRES_URL", "postgresql://user@host:5432/db?sslmode=verify-full&sslrootcert=/etc/ca.pem"),
        ("POSTGRES_URL", "postgres://user%40site@host/db"),
        ("POSTGRES_URL", "postgresql://[::1]:5432/db?application_name=a:b@c"),
        ("ELASTICSEARCH_URLS", "https://a:9200, https://[::1]:9200/path"),
        ("DICOMWEB_URL", "https://host:8042/dicom-web/"),
        ("DOCKER_URL", "unix:///run/user@1000/docker.sock"),
    ],
)
def test_addresses_without_secrets_are_taken(empty_environment, name, value):
    empty_environment.setenv(f"KAAPANA_{name}", value)
    load_settings()


def test_a_refusal_on_the_command_line_shows_no_secret(empty_environment, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "kaapana_assets", "status"],
        env={**os.environ, "KAAPANA_POSTGRES_URL": "postgresql://u:planted@h/db", "KAAPANA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "KAAPANA_POSTGRES_PASSWORD" in done.stderr
    assert "planted" not in done.stdout + done.stderr


# The operator and the workflow file leave what they see, where the test finds it.
SPY = """
import json, os
from pathlib import Path
for series in Path(os.environ["WORKFLOW_DIR"], "batch").iterdir():
    out = series / os.environ["OPERATOR_OUT_DIR"]
    out.mkdir()
    (out / "seen.json").write_text(json.dumps(dict(os.environ)))
"""
FLOW = """
import json, os, sys
from pathlib import Path
from kaapana_assets.workflows import ContainerOperator, Workflow
if "workflows" in sys.argv:
    Path(os.environ["SEEN"], f"{os.getpid()}.json").write_text(json.dumps(dict(os.environ)))
workflow = Workflow(name="spy", operators=(ContainerOperator(name="spy", image="spy"),))
"""
PLANTED = {
    "KAAPANA_ELASTICSEARCH_API_KEY": "planted-elasticsearch-key",
    "KAAPANA_S3_ACCESS_KEY": "planted-s3-name",
    "KAAPANA_S3_SECRET_KEY": "planted-s3-secret",
    "KAAPANA_DICOMWEB_TOKEN": "planted-dicomweb-token",
    "KAAPANA_IMAGE_PULL_SECRETS": '{"site": {"auths": {"registry.example": {"auth": "planted-registry"}}}}',
    "PGSSLPASSWORD": "planted-postgres-key",
    "AWS_SECRET_ACCESS_KEY": "planted-of-another",
}
EXPECTED = {
    "receiver": set(),
    "webserver": {"KAAPANA_POSTGRES_PASSWORD", "PGSSLPASSWORD", "AWS_SECRET_ACCESS_KEY"},
    "daemon": {"KAAPANA_POSTGRES_PASSWORD", "PGSSLPASSWORD", "AWS_SECRET_ACCESS_KEY"},
    "health": {"KAAPANA_POSTGRES_PASSWORD", *PLANTED} - {"KAAPANA_IMAGE_PULL_SECRETS"},
    "code-server": {"KAAPANA_POSTGRES_PASSWORD", *PLANTED} - {"KAAPANA_IMAGE_PULL_SECRETS"},
}


class Planted:
    """A running platform on a PostgreSQL of the site, with a secret in each setting that has one."""

    def __init__(self, up: RunningPlatform, secrets: dict[str, str], seen: Path, database: str) -> None:
        self.up = up
        self.secrets = secrets
        self.seen = seen
        self.database = database

    def found_in(self, content: bytes) -> set[str]:
        """The names of the secrets that are in it, as they are or as they are written elsewhere."""
        found = set()
        for name, value in self.secrets.items():
            word = "planted-registry" if name == "KAAPANA_IMAGE_PULL_SECRETS" else value
            forms = (word, urllib.parse.quote(word, safe=""), base64.b64encode(word.encode()).decode()[:-4])
            if any(form.encode() in content for form in forms):
                found.add(name)
        return found


@pytest.fixture(scope="module")
def planted(module_platforms, tmp_path_factory) -> Iterator[Planted]:  # noqa: F811 - the fixture
    folder = tmp_path_factory.mktemp("secrets")
    write_image(folder / "images", "spy", SPY)
    seen = folder / "seen"
    seen.mkdir()
    with service("postgres", folder / "server") as server:
        home = module_platforms.new_home()
        dags = home / "workflows" / "dags"
        dags.mkdir(parents=True)
        (dags / "spy.py").write_text(FLOW)
        variables = PLANTED | server.settings | {"KAAPANA_IMAGES": str(folder / "images"), "SEEN": str(seen)}
        up = module_platforms.start(home, **variables)
        password = server.settings["KAAPANA_POSTGRES_PASSWORD"]
        yield Planted(
            up, PLANTED | {"KAAPANA_POSTGRES_PASSWORD": password}, seen, server.settings["KAAPANA_POSTGRES_URL"]
        )
        up.stop()


@pytest.mark.system
def test_each_process_of_a_running_platform_has_only_its_secrets(planted):
    record = planted.up.record
    for part, expected in EXPECTED.items():
        process = psutil.Process(record.parts[part])
        assert planted.found_in(Path(f"/proc/{process.pid}/environ").read_bytes()) == expected, part
        if part not in ("code-server", "health"):
            for child in process.children(recursive=True):
                assert planted.found_in(Path(f"/proc/{child.pid}/environ").read_bytes()) <= expected, part
    for process in psutil.process_iter(["cmdline"]):
        line = "\0".join(process.info["cmdline"] or ()).encode()
        assert planted.found_in(line) == set(), process
        if b"kaapana_assets.supervision.watchdog" in line and record.token.encode() in line:
            assert planted.found_in(Path(f"/proc/{process.pid}/environ").read_bytes()) == set()


@pytest.mark.system
def test_a_run_leaves_no_secret_in_operators_files_logs_pages_and_the_database(planted, tmp_path):
    up = planted.up
    series = write_series(tmp_path / "dicom", instances=1, SeriesDescription="secrets")
    up.kaapana("send", tmp_path / "dicom")
    stored = up.dagster.partition_status
    up.wait_until(lambda: series in stored("series_metadata").materialized, 200, "the series as asset")
    up.kaapana("cohort", "create", "all", "--query", 'SeriesDescription:"secrets"')
    said = up.kaapana("run", "spy", "--cohort", "all")
    assert planted.found_in((said.stdout + said.stderr).encode()) == set()
    for args in (["status", "--json"], ["backup", tmp_path / "backup"]):
        said = up.kaapana(*args, check=False)
        assert planted.found_in((said.stdout + said.stderr).encode()) == set(), args
    for file in (tmp_path / "backup").rglob("*"):
        assert not file.is_file() or planted.found_in(file.read_bytes()) == set(), file

    (seen,) = up.home.glob(f"assets/spy/spy/{series}/**/seen.json")
    assert planted.found_in(seen.read_bytes()) == set()
    # What the health page loads workflow files with.
    health = requests.get(f"{up.record.health_url}health.json", timeout=30)
    page = requests.get(up.record.health_url, timeout=30)
    up.wait_until(lambda: list(planted.seen.iterdir()), what="the workflow file was loaded for the health page")
    for file in planted.seen.iterdir():
        seen_secrets = planted.found_in(file.read_bytes())
        assert seen_secrets <= {"AWS_SECRET_ACCESS_KEY"}, json.loads(file.read_text())["KAAPANA_WITHHELD"]
    instance = requests.post(f"{up.record.dagster_url}/graphql", json={"query": "{instance{info}}"}, timeout=30)
    assert "KAAPANA_POSTGRES_PASSWORD" in (up.home / "dagster" / "dagster.yaml").read_text()
    assert planted.found_in(health.content + page.content + instance.content) == set()

    for folder in (up.home, Path(up.record.folder), up.console.parent):
        for file in folder.rglob("*"):
            if file.is_file():
                assert planted.found_in(file.read_bytes()) == set(), file
    password = planted.secrets["KAAPANA_POSTGRES_PASSWORD"]
    with closing(psycopg2.connect(planted.database, password=password)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        tables = [name for (name,) in cursor.fetchall()]
        assert "event_logs" in tables
        for table in tables:
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            assert planted.found_in("\n".join(row for (row,) in cursor).encode()) == set(), table


BACKEND = """
import json, os, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    with open(os.environ["SEEN"], "w") as file:
        json.dump(dict(os.environ), file)
    with zipfile.ZipFile(os.path.join(folder, "spy-1.0-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("spy.py", "")
        wheel.writestr("spy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: spy\\nVersion: 1.0\\n")
        wheel.writestr("spy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("spy-1.0.dist-info/RECORD", "")
    return "spy-1.0-py3-none-any.whl"
"""


def test_code_of_packages_that_are_installed_sees_no_secret(monkeypatch, tmp_path):
    """A package's own build backend is executed when an operator's requirements are installed."""
    write_image(tmp_path / "images", "spy", "print('done')")
    package = tmp_path / "images" / "spy" / "files" / "package"
    package.mkdir()
    (package / "backend.py").write_text(BACKEND)
    (package / "pyproject.toml").write_text(
        '[project]\nname = "spy"\nversion = "1.0"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (tmp_path / "images" / "spy" / "Dockerfile").write_text(
        "FROM python:3.12-slim\nWORKDIR /app\nCOPY files/ /app/\nRUN pip install ./package\n"
        'ENTRYPOINT ["python", "main.py"]\n'
    )
    for name in SECRETS:
        monkeypatch.setenv(name, "planted")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen.json"))
    launch = Launch(
        run_id="r", workflow="w", operator="o", image="spy", directory=tmp_path / "run",
        operator_in_dir="i", operator_out_dir="o",
    )  # fmt: skip
    (tmp_path / "run" / "batch").mkdir(parents=True)
    said: list[str] = []
    ProcessRunner(tmp_path / "images", tmp_path / "environments").run(launch, output=said.append)
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen.keys() & SECRETS == set()
    assert "planted" not in json.dumps(seen)


def test_what_a_backup_starts_gets_no_secrets(monkeypatch, tmp_path):
    monkeypatch.setenv("KAAPANA_S3_SECRET_KEY", "planted-secret")
    with served(tmp_path / "data"):
        started = psutil.Process().children(recursive=True)
        environments = []
        for each in started:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has ended
                environments.append(Path("/proc", str(each.pid), "environ").read_bytes())
    assert len(environments) >= 2  # the server, and what ends it with this process
    assert not any(b"planted-secret" in each for each in environments)
