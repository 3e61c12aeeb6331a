"""What an older version left is brought up to date; what a newer one left is refused, with what to do."""

import importlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.storage.sql import ALEMBIC_SCRIPTS_LOCATION
from supervision.test_postgres import query, serving

from kaapana_assets import __version__, home_record
from kaapana_assets.defs import storage_migration as dagster_storage
from kaapana_assets.defs.assembly import build_definitions
from kaapana_assets.errors import ConfigurationError, DagsterUnavailable
from kaapana_assets.forgetting.dagster_events import dagster_location
from kaapana_assets.home import check_home, make_home
from kaapana_assets.settings import load_settings
from kaapana_assets.settings.user_ids import NOBODY_UID
from kaapana_assets.stores.forgotten import Forgetting
from kaapana_assets.stores.pacs.folder import FolderPacs
from kaapana_assets.stores.sqlite_index import SqliteIndex
from kaapana_assets.supervision.instance import write_instance
from kaapana_assets.supervision.postgres import Postgres

OLD_BINARIES = Path("/usr/lib/postgresql/15/bin")


def kaapana(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KAAPANA_")}
    return subprocess.run(
        [sys.executable, "-m", "kaapana_assets", *arguments],
        cwd=home,
        env=environment | {"KAAPANA_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def written_by(home: Path, **changed: object) -> None:
    """Let the record of a home say that another version wrote it."""
    file = home / home_record.RECORD
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


def test_a_home_without_a_record_opens_and_gets_one(tmp_path):
    (tmp_path / "cohorts").mkdir()
    check_home(tmp_path)
    assert home_record.read(tmp_path) is None
    make_home(tmp_path)
    found = home_record.read(tmp_path)
    assert found is not None
    assert (found.version, found.layout) == (__version__, home_record.LAYOUT)


def test_an_older_home_is_noted_as_this_version(tmp_path):
    make_home(tmp_path)
    written_by(tmp_path, version="0.0.9", layout=0)
    make_home(tmp_path)
    found = home_record.read(tmp_path)
    assert found is not None
    assert (found.version, found.layout) == (__version__, home_record.LAYOUT)


@pytest.mark.parametrize("changed", [{"version": "77.1.0"}, {"layout": 99}], ids=["version", "layout"])
@pytest.mark.parametrize(
    "command",
    [["up", "--webserver-port=0", "--receiver-port=0", "--health-port=0"], ["import", "."], ["query", "*"]],
    ids=["up", "import", "query"],
)
def test_an_older_program_refuses_a_newer_home_by_name(tmp_path, changed, command):
    make_home(tmp_path)
    written_by(tmp_path, **changed)
    before = sorted(path.name for path in tmp_path.iterdir())
    done = kaapana(tmp_path, *command)
    assert done.returncode == 2, done
    assert f"written by kaapana-assets {changed.get('version', __version__)}" in done.stderr
    assert "newer" in done.stderr
    assert "Traceback" not in done.stderr
    # Not touched either.
    assert [name for name in sorted(path.name for path in tmp_path.iterdir()) if name not in before] == []


def test_dagster_does_not_load_a_newer_home_either(tmp_path):
    make_home(tmp_path)
    written_by(tmp_path, version="77.1.0")
    with pytest.raises(ConfigurationError, match="written by kaapana-assets 77"):
        build_definitions(load_settings(home=tmp_path))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"layout": 1}'], ids=["empty", "cut", "list", "incomplete"])
def test_a_damaged_record_is_said_and_not_overwritten(tmp_path, text):
    make_home(tmp_path)
    (tmp_path / home_record.RECORD).write_text(text)
    with pytest.raises(ConfigurationError, match="damaged"):
        make_home(tmp_path)
    assert (tmp_path / home_record.RECORD).read_text() == text


def test_a_newer_index_and_catalog_are_refused(tmp_path):
    SqliteIndex(tmp_path / "index.sqlite").put([{"SeriesInstanceUID": "1.2.3"}])
    assert FolderPacs(tmp_path / "archive").counts().series == 0
    for file in (tmp_path / "index.sqlite", tmp_path / "archive" / "catalog.sqlite"):
        connection = sqlite3.connect(file)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
    with pytest.raises(ConfigurationError, match="use a newer program"):
        SqliteIndex(tmp_path / "index.sqlite").put([{"SeriesInstanceUID": "1.2.3"}])
    with pytest.raises(ConfigurationError, match="use a newer program"):
        FolderPacs(tmp_path / "archive").counts()


@pytest.fixture
def instance(tmp_path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"telemetry": {"enabled": False}}) as made:
        yield made


def runs_database(tmp_path: Path) -> Path:
    (found,) = tmp_path.rglob("runs.db")
    return found


def stamp(file: Path, revision: str) -> None:
    connection = sqlite3.connect(file)
    connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.commit()
    connection.close()


def test_dagsters_storage_of_an_older_version_is_migrated(tmp_path, instance):
    revision, head = instance.run_storage.alembic_version()
    assert revision == head
    assert not dagster_storage.bring_up_to_date(instance)
    config = Config()
    config.set_main_option("script_location", ALEMBIC_SCRIPTS_LOCATION)
    known = ScriptDirectory.from_config(config).get_revision(head)
    assert isinstance(known.down_revision, str)
    stamp(runs_database(tmp_path), known.down_revision)
    assert dagster_storage.bring_up_to_date(instance)
    assert instance.run_storage.alembic_version() == (head, head)


def test_dagsters_storage_of_a_newer_version_is_refused(tmp_path, instance):
    instance.run_storage.alembic_version()
    stamp(runs_database(tmp_path), "ffffffffffff")
    with pytest.raises(ConfigurationError, match=r"by a newer program.*restore a backup"):
        dagster_storage.bring_up_to_date(instance)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, since the path of a socket is limited to about 100 characters."""
    path = Path(tempfile.mkdtemp(prefix="pg-"))
    # PostgreSQL may run as another user than root.
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def made_by_old_version(postgres: Postgres) -> None:
    """Replace the files of a server by those of an older major version, with a table."""
    if not (OLD_BINARIES / "initdb").exists():
        pytest.skip(f"needs an older PostgreSQL in {OLD_BINARIES}")
    with serving(postgres):
        pass
    owner = postgres.data.stat()
    shutil.rmtree(postgres.data)
    postgres.data.mkdir(mode=0o700)
    maker = NOBODY_UID if os.geteuid() == 0 else os.geteuid()  # initdb wants a user with a name
    os.chown(postgres.data, maker, -1)

    def run(*argv: str | Path, **options: object) -> None:
        identity = {"user": maker, "group": maker, "extra_groups": []} if os.geteuid() == 0 else {}
        subprocess.run([*map(str, argv)], check=True, stdout=subprocess.DEVNULL, cwd="/", **identity, **options)  # type: ignore[call-overload]

    run(OLD_BINARIES / "initdb", "-D", postgres.data, "-U", "postgres", "--auth=trust", "--encoding=UTF8")
    single = [OLD_BINARIES / "postgres", "--single", "-D", postgres.data, "postgres"]
    run(*single, input="create table seen (what text)\ninsert into seen values ('before')\n", text=True)
    for path in (postgres.data, *postgres.data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    assert (postgres.data / "PG_VERSION").read_text().strip() == "15"


def test_the_data_of_an_older_postgresql_is_taken_over(folder):
    postgres = Postgres(folder / "pg" / "data", folder / "socket")
    made_by_old_version(postgres)
    with serving(postgres):
        assert query(postgres, "select what from seen") == [("before",)]
    assert (postgres.data / "PG_VERSION").read_text().strip() == "18"
    assert (folder / "pg" / "data-15" / "PG_VERSION").exists()
    assert not (folder / "pg" / "upgrade.sql").exists()
    # The power was cut between the two renames.
    (postgres.data / ".kaapana-whole").touch()
    postgres.data.rename(folder / "pg" / "data.new")
    with serving(postgres):
        assert query(postgres, "select what from seen") == [("before",)]


def test_the_data_of_a_postgresql_that_is_not_there_is_refused_and_kept(folder):
    postgres = Postgres(folder / "pg" / "data", folder / "socket")
    with serving(postgres):
        pass
    for version, said in (("11", r"install PostgreSQL 11 beside it"), ("99", r"by PostgreSQL 99.*newer program")):
        (postgres.data / "PG_VERSION").write_text(version)
        with pytest.raises(ConfigurationError, match=said):
            postgres.prepare()
        assert (postgres.data / "global").is_dir()


def test_forgetting_waits_for_up_where_the_storage_is_that_of_an_earlier_version(tmp_path: Path):
    settings = load_settings(home=tmp_path / "home", postgres_url="postgresql://u@127.0.0.1:1/d")
    forgetting = Forgetting(id="1", kind="series", asked_by="me", asked="2026-01-01T00:00:00+00:00", series=("1.2.3",))
    location = dagster_location(settings, forgetting, storage_is_up=True)
    settings.paths.dagster.mkdir(parents=True)
    write_instance(settings.paths.dagster, storage={}, code_socket=tmp_path / "code.sock", launching={})
    today = settings.paths.dagster / "dagster.yaml"
    module = json.loads(today.read_text())["storage"]["custom"]["module"]
    assert importlib.import_module(module).ReconnectingPostgresStorage
    with pytest.raises(DagsterUnavailable, match="cannot be written"):  # it was asked: nobody answers there
        location.clear()
    today.write_text(today.read_text().replace(module, "kaapana_assets.patient_storage"))
    with pytest.raises(DagsterUnavailable, match="set up by an earlier version"):
        location.clear()
