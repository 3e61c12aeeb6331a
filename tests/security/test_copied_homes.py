"""A copy of a home never acts on what belongs to its original, and never takes its databases unnoticed."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from system.conftest import platforms  # noqa: F401 - a fixture

from kaapana_assets import home_record
from kaapana_assets.errors import ConfigurationError
from kaapana_assets.home import make_home
from kaapana_assets.settings import load_settings
from kaapana_assets.supervision import record
from kaapana_assets.supervision.postgres_server import claim_database
from kaapana_assets.supervision.watchdog import TOKEN_VARIABLE

TOKEN = "mark-of-the-original"


@pytest.fixture
def victim() -> Iterator[psutil.Process]:
    """A process as the platform of the original starts them."""
    argv = [sys.executable, "-c", "import time; time.sleep(600)"]
    process = subprocess.Popen(argv, env=os.environ | {TOKEN_VARIABLE: TOKEN}, start_new_session=True)
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


@pytest.fixture
def original(tmp_path, victim) -> Path:
    """A home on which a platform runs: its record names the victim."""
    home = tmp_path / "original"
    make_home(home)
    home_record.settle(home)
    sockets = tmp_path / "sockets"
    sockets.mkdir()
    record.write_record(
        home,
        record.PlatformRecord(
            pid=victim.pid,
            token=TOKEN,
            folder=str(sockets),
            webserver_host="127.0.0.1",
            webserver_port=1,
            receiver_host="127.0.0.1",
            receiver_port=2,
            receiver_ae_title="ORIGINAL",
            parts={"code-server": victim.pid},
        ),
    )
    return home


def kaapana(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KAAPANA_")}
    return subprocess.run(
        [sys.executable, "-m", "kaapana_assets", *arguments],
        cwd=home,
        env=environment | {"KAAPANA_HOME": str(home)} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def up_without_server(home: Path, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``up`` as far as its first look for PostgreSQL, which is not there."""
    return kaapana(
        home,
        "up",
        "--webserver-port=0",
        "--receiver-port=0",
        "--health-port=0",
        *arguments,
        KAAPANA_POSTGRES_URL=f"postgresql://kaapana@127.0.0.1:{port}/none",
        KAAPANA_POSTGRES_PATIENCE_S="0",
    )


def lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_up_on_a_copy_leaves_the_processes_and_sockets_of_the_original(tmp_path, original, victim, free_port):
    copy = tmp_path / "copy"
    with record.lock_home(original):
        shutil.copytree(original, copy)
        done = up_without_server(copy, free_port)
    assert "does not answer" in done.stderr, done
    assert f"copy of {original}" in done.stdout
    assert lives(victim)
    assert (tmp_path / "sockets").is_dir()
    assert not (copy / "platform.json").exists()
    assert (original / "platform.json").exists()


def test_up_on_a_copy_at_the_path_of_its_original_leaves_that(tmp_path, original, victim, free_port):
    aside = tmp_path / "aside"
    original.rename(aside)
    shutil.copytree(aside, original)
    done = up_without_server(original, free_port)
    assert "does not answer" in done.stderr, done
    assert lives(victim)


def test_what_a_killed_platform_left_is_ended_in_its_own_home_also_after_a_move(tmp_path, original, victim, free_port):
    moved = tmp_path / "moved"
    original.rename(moved)
    done = up_without_server(moved, free_port)
    assert "ending what is left" in done.stdout, done
    assert not lives(victim)
    assert "copy" not in done.stdout


def test_processes_of_before_a_restart_of_the_machine_are_not_looked_for(original, victim, free_port):
    file = original / "platform.json"
    said = json.loads(file.read_text())
    said["home"]["boot"] = "another"
    file.write_text(json.dumps(said))
    up_without_server(original, free_port)
    assert lives(victim)


def test_down_on_a_copy_that_starts_does_not_stop_the_original(tmp_path, original, victim):
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    with record.lock_home(copy):
        done = kaapana(copy, "down")
    assert "no platform is up" in done.stdout
    assert lives(victim)


def test_down_does_not_signal_a_process_that_took_the_number_of_a_killed_platform(original, victim):
    with record.lock_home(original):
        assert record.running_platform(original) is not None
        done = kaapana(original, "down")
    assert "no platform is up" in done.stdout
    assert lives(victim)


def test_the_record_of_an_earlier_version_counts_only_for_the_process_that_holds_the_lock(tmp_path, original, victim):
    file = original / "platform.json"
    said = json.loads(file.read_text())
    del said["home"]
    file.write_text(json.dumps(said))
    with record.lock_home(original):
        assert record.running_platform(original) is None
        file.write_text(json.dumps({**said, "pid": os.getpid()}))
        found = record.running_platform(original)
    assert found is not None
    assert found.receiver_ae_title == "ORIGINAL"


def test_a_home_is_the_same_after_a_restart_of_the_machine_and_a_new_mount(tmp_path):
    make_home(tmp_path)
    here = home_record.identity_of(tmp_path)
    assert here.is_same_folder(dataclasses.replace(here, boot="another", device=here.device + 1))
    assert here.is_same_folder(dataclasses.replace(here, device=here.device + 1))
    assert here.is_same_folder(dataclasses.replace(here, path="/elsewhere"))
    # The root of a volume has the same inode in every copy.
    assert not here.is_same_folder(dataclasses.replace(here, marker=here.marker + 1))
    assert not here.is_same_folder(dataclasses.replace(here, path="/elsewhere", device=here.device + 1))


SERVERS = {"index": "elasticsearch at http://127.0.0.1:9200, kaapana"}


def test_a_copy_with_the_servers_of_its_original_is_refused_until_the_original_is_gone(tmp_path, original):
    home_record.settle(original, SERVERS)
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=rf"copy of the home {original}.*9200.*--accept-copy"):
            home_record.settle(copy, SERVERS)
    assert home_record.settle(copy, SERVERS, accept_copy=True) is not None
    assert home_record.settle(copy, SERVERS) is None
    assert home_record.settle(original, SERVERS) is None


def test_a_copy_with_servers_of_its_own_opens_and_so_does_a_moved_home(tmp_path, original):
    home_record.settle(original, SERVERS)
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    assert home_record.settle(copy, {"index": "another"}) is not None
    moved = tmp_path / "moved"
    original.rename(moved)
    assert home_record.settle(moved, SERVERS) is None


@pytest.mark.parametrize(("arguments", "said"), [([], "--accept-copy"), (["--accept-copy"], "does not answer")])
def test_up_on_a_copy_with_the_index_server_of_its_original(tmp_path, original, free_port, arguments, said):
    servers = {
        "KAAPANA_INDEX": "elasticsearch",
        "KAAPANA_ELASTICSEARCH_URLS": f"http://127.0.0.1:{free_port}",
        "KAAPANA_ELASTICSEARCH_PATIENCE_S": "0",
        "KAAPANA_POSTGRES_URL": f"postgresql://kaapana@127.0.0.1:{free_port}/none",
        "KAAPANA_POSTGRES_PATIENCE_S": "0",
    }
    ports = ["--webserver-port=0", "--receiver-port=0", "--health-port=0"]
    (original / "platform.json").unlink()
    kaapana(original, "up", *ports, **servers)
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    done = kaapana(copy, "up", *ports, *arguments, **servers)
    assert done.returncode == 2
    assert said in done.stderr, done


def test_a_copy_does_not_take_the_place_of_an_original_that_is_up(tmp_path, original, victim, free_port):
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    with record.lock_home(original):
        done = up_without_server(copy, free_port, "--accept-copy")
    assert f"process {victim.pid}" in done.stderr
    assert "stop it first" in done.stderr
    assert "does not answer" in up_without_server(copy, free_port, "--accept-copy").stderr


@pytest.fixture
def database(postgres_server):
    """A database of its own; settings without a home."""
    import psycopg2

    password = postgres_server.settings["KAAPANA_POSTGRES_PASSWORD"]
    address = postgres_server.settings["KAAPANA_POSTGRES_URL"]
    server = psycopg2.connect(address, password=password)
    server.autocommit = True
    with server.cursor() as cursor:
        cursor.execute("DROP DATABASE IF EXISTS copied_homes")
        cursor.execute("CREATE DATABASE copied_homes TEMPLATE template0")
    yield {"postgres_url": address.rpartition("/")[0] + "/copied_homes", "postgres_password": password}
    with server.cursor() as cursor:
        cursor.execute("DROP DATABASE copied_homes WITH (FORCE)")
    server.close()


@pytest.mark.services
def test_a_copy_is_refused_the_database_of_its_original(tmp_path, original, victim, database):
    claim_database(load_settings(home=original, **database))
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    settings = load_settings(home=copy, **database)
    with pytest.raises(ConfigurationError, match=rf"belongs to the home {original}.*--accept-copy"):
        claim_database(settings)
    with record.lock_home(original), pytest.raises(ConfigurationError, match=f"process {victim.pid}"):
        claim_database(settings, accept_copy=True)
    claim_database(settings, accept_copy=True)
    claim_database(settings)
    with pytest.raises(ConfigurationError, match=rf"belongs to the home {copy}"):
        claim_database(load_settings(home=original, **database))


@pytest.mark.services
def test_a_moved_home_keeps_its_database(tmp_path, original, database):
    claim_database(load_settings(home=original, **database))
    moved = tmp_path / "moved"
    original.rename(moved)
    claim_database(load_settings(home=moved, **database))


@pytest.mark.services
def test_a_database_that_an_earlier_version_noted_is_kept(tmp_path, original, database):
    import psycopg2

    home_record.platform_id(original)
    noted = psycopg2.connect(database["postgres_url"], password=database["postgres_password"])
    with noted, noted.cursor() as cursor:
        cursor.execute("CREATE TABLE kaapana_home (one boolean PRIMARY KEY DEFAULT true, id text, path text)")
        owner = (home_record.platform_id(original), str(original))
        cursor.execute("INSERT INTO kaapana_home (id, path) VALUES (%s, %s)", owner)
    noted.close()
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    with pytest.raises(ConfigurationError, match="is a copy of that"):
        claim_database(load_settings(home=copy, **database))
    claim_database(load_settings(home=original, **database))


@pytest.mark.system
def test_original_and_copy_are_up_side_by_side(platforms, tmp_path):  # noqa: F811 - the fixture
    first = platforms.start()
    copy = tmp_path / "copy"
    # With owners, as PostgreSQL wants its files; while the platform runs, as people do it.
    subprocess.run(["cp", "-a", str(first.home), str(copy)], check=True)
    second = platforms.start(home=copy)
    assert f"copy of {first.home}" in second.said()
    assert first.dagster.is_loaded()
    assert second.dagster.is_loaded()
    assert second.record.dagster_url != first.record.dagster_url
    assert "crashed" not in first.said()
    second.stop()
    assert first.dagster.is_loaded()
