"""Other users of the machine: they read nothing of a home, reach no socket and hold no lock of it.

The attacker is ``nobody``, and knows the path of every file. The home lies where all users may pass, and was
filled by commands as a person types them, under the umask that most machines have.
"""

import fcntl
import json
import os
import pwd
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from system.conftest import Platforms
from workflows.conftest import EACH_SERIES, write_dicom

from kaapana_assets.accounts import check_operator_account, strange_accounts
from kaapana_assets.errors import ConfigurationError
from kaapana_assets.home import keep_private, make_home
from kaapana_assets.locks import is_locked, open_lock
from kaapana_assets.settings import Settings, load_settings
from kaapana_assets.settings.user_ids import NOBODY_UID, OPERATOR_UID, POSTGRES_UID
from kaapana_assets.stores.objects.folder import FolderObjects
from kaapana_assets.supervision.record import lock_home

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user to attack as")
SERIES = "1.2.3.1"
WORKFLOW = """
from kaapana_assets.workflows import ContainerOperator, Workflow
copy = ContainerOperator(name="copy", image="copy")
flow = Workflow(name="flow", operators=(copy,))
"""
# What the daemon of Dagster does when a series has arrived and somebody runs a workflow on a cohort.
RUNS = f"""
import dagster as dg
from kaapana_assets.definitions import defs
with dg.DagsterInstance.get() as instance:
    instance.add_dynamic_partitions("series", ["{SERIES}"])
    tags = {{"dagster/asset_partition_range_start": "{SERIES}", "dagster/asset_partition_range_end": "{SERIES}"}}
    assert defs.resolve_job_def("ingest").execute_in_process(instance=instance, tags=tags).success
    import subprocess, sys
    freeze = [sys.executable, "-m", "kaapana_assets", "cohort", "create", "all", "--query", "Modality:MR"]
    subprocess.run(freeze, check=True)
    instance.add_dynamic_partitions("cohorts", ["all"])
    assert defs.resolve_job_def("flow").execute_in_process(instance=instance, partition_key="all").success
"""


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that all users may enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="ka-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def home(open_folder: Path, request: pytest.FixtureRequest) -> Path:
    return open_folder / re.sub(r"\W", "-", request.node.name)


def kaapana(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return python(home, "-m", "kaapana_assets", *arguments, **variables)


def python(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("KAAPANA_", "DAGSTER_"))}
    environment = clean | {"KAAPANA_HOME": str(home), "KAAPANA_SERIES_QUIET_S": "0"} | variables
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=home.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        umask=0o022,
    )


@dataclass
class LivedIn:
    """A home that commands and runs have filled."""

    home: Path
    paths: list[Path]

    def named(self, pattern: str) -> list[Path]:
        return [path for path in self.paths if path.match(pattern)]


@pytest.fixture(scope="module")
def lived_in(open_folder: Path) -> LivedIn:
    home, images = open_folder / "home", open_folder / "images"
    write_dicom(open_folder / "sent" / "1.dcm", series=SERIES, instance=1)
    (images / "copy" / "files").mkdir(parents=True)
    (images / "copy" / "requirements.txt").touch()
    (images / "copy" / "Dockerfile").write_text(
        'FROM debian\nWORKDIR /app\nCOPY files/ /app/\nENTRYPOINT ["/bin/sh", "run.sh"]\n'
    )
    body = 'cp /bin/true "$out/true"; chmod 6777 "$out/true"; cat "$in"/* > "$out/all.bin"'
    (images / "copy" / "files" / "run.sh").write_text(EACH_SERIES.replace("{body}", body))
    places = {
        "DAGSTER_HOME": str(home / "dagster"),
        "KAAPANA_IMAGES": str(images),
        "KAAPANA_ENVIRONMENTS": str(open_folder / "environments"),
    }
    for arguments in (
        ("-m", "kaapana_assets", "import", str(open_folder / "sent")),
        ("-c", f"import os; os.umask(0o077); os.mkdir({str(home / 'dagster')!r})"),
    ):
        done = python(home, *arguments, **places)
        assert done.returncode == 0, done.stderr
    (home / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (home / "workflows" / "dags").mkdir(parents=True)  # as its author makes it, under his umask
    (home / "workflows" / "dags" / "flow.py").write_text(WORKFLOW)
    for arguments in (("-c", RUNS), ("-m", "kaapana_assets", "query", "Modality:MR")):
        done = python(home, *arguments, **places)
        assert done.returncode == 0, done.stderr
    assert SERIES in done.stdout
    return LivedIn(home, everything(home))


def everything(folder: Path) -> list[Path]:
    return [folder, *sorted(folder.rglob("*"))]


def reached(paths: Sequence[Path], *, uid: int = NOBODY_UID, groups: Sequence[int] = ()) -> list[str]:
    """Those of the paths that a user can read, list, connect to or lock; asked in a process of that user."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups(list(groups))
            os.setgid(NOBODY_UID)
            os.setuid(uid)
            os.close(reader)
            with os.fdopen(writer, "w") as told:
                json.dump([str(path) for path in paths if _reaches(path)], told)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as told:
        found = told.read()
    assert os.waitpid(child, 0)[1] == 0
    return list(json.loads(found))


def _reaches(path: Path) -> bool:
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
            return True
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(descriptor)
    return True


@as_root
def test_nobody_else_reads_anything_of_a_home_that_commands_and_runs_filled(lived_in: LivedIn) -> None:
    for kind in ("archive/*/*/*.dcm", "index.sqlite", "cohorts/all.json", "all.bin", "*.lock", "dagster/**/*"):
        assert lived_in.named(kind), kind
    assert reached(lived_in.paths) == []
    assert reached([lived_in.home.parent]) != []


@as_root
def test_what_the_platform_made_is_private_also_in_a_home_that_somebody_opened(lived_in: LivedIn) -> None:
    """The second line: of files that share their content with operators' copies, the folder is closed."""
    of_their_author = {lived_in.home, *lived_in.named("home/workflows/dags/**"), *lived_in.named("home/workflows")}
    of_their_author |= {path for path in lived_in.paths if "dags" in path.parts or path.name == "dagster.yaml"}
    lived_in.home.chmod(0o755)
    try:
        assert [each for each in reached(lived_in.paths) if Path(each) not in of_their_author] == []
    finally:
        lived_in.home.chmod(0o700)


def test_nothing_in_a_home_runs_with_the_rights_of_another(lived_in: LivedIn) -> None:
    assert lived_in.named("assets/flow/copy/*/true")
    modes = {path: path.lstat().st_mode for path in lived_in.paths}
    assert [path for path, mode in modes.items() if mode & (stat.S_ISUID | stat.S_ISGID)] == []


@pytest.mark.parametrize(
    ("command", "mode"),
    [
        *(("import", mode) for mode in (0o755, 0o711, 0o701, 0o770, 0o710)),
        *(
            (command, 0o755)
            for command in ("index rebuild", "cohort create a --query *", "clean", "up", "run x --cohort all")
        ),
    ],
    ids=str,
)
def test_home_that_others_may_enter_is_refused_with_the_command_that_closes_it(
    home: Path, command: str, mode: int
) -> None:
    make_home(home)
    home.chmod(mode)
    words = [*command.split(), *([str(home.parent)] if command == "import" else [])]
    refused = kaapana(home, *words)
    assert refused.returncode == 2, refused.stdout
    assert "Traceback" not in refused.stderr
    (line,) = re.findall(r"^\s*(chmod 700 .*)$", refused.stderr, re.M)
    subprocess.run(["sh", "-c", line], check=True)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert kaapana(home, "cohort", "list").returncode == 0
    make_home(home)


@pytest.mark.parametrize("content", [(), ("workflows",), ("lost+found",)], ids=str)
def test_folder_that_becomes_a_home_is_closed(home: Path, content: tuple[str, ...]) -> None:
    home.mkdir()
    for name in content:
        (home / name).mkdir()
    home.chmod(0o755)
    make_home(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_folder_with_other_things_in_it_is_left_as_it_is(home: Path) -> None:
    home.mkdir()
    (home / "mine.txt").touch()
    home.chmod(0o755)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        make_home(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o755
    assert [each.name for each in home.iterdir()] == ["mine.txt"]


@as_root
def test_members_of_the_group_read_and_others_do_not(home: Path) -> None:
    group = 54321
    (home.parent / "empty").mkdir(exist_ok=True)
    assert kaapana(home, "import", str(home.parent / "empty"), KAAPANA_GROUP=str(group)).returncode == 0
    assert kaapana(home, "index", "rebuild", KAAPANA_GROUP=str(group)).returncode == 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o2750
    found = everything(home)
    assert reached(found) == []
    for wanted in (home, home / "incoming", home / "index.sqlite"):
        assert str(wanted) in reached(found, groups=[group])
    assert [path for path in found if path.stat().st_mode & 0o027] == []


@as_root
def test_home_without_the_groups_rights_is_refused_with_the_command_that_gives_them(home: Path) -> None:
    make_home(home)
    (home / "cohorts").mkdir()
    refused = kaapana(home, "import", str(home), KAAPANA_GROUP="54321")
    (line,) = re.findall(r"^\s*(chgrp .*)$", refused.stderr, re.M)
    subprocess.run(["sh", "-c", line], check=True)
    make_home(home, group="54321")
    assert reached([home, home / "cohorts"]) == []
    assert len(reached([home, home / "cohorts"], groups=[54321])) == 2
    assert kaapana(home, "import", str(home), KAAPANA_GROUP="no-such-group").returncode == 2


@as_root
def test_commands_of_another_user_end_with_one_sentence(home: Path) -> None:
    make_home(home)
    lock_home(home).close()
    script = (
        "import os, sys; from kaapana_assets.cli import main; import kaapana_assets.cli.query\n"
        "import kaapana_assets.operations.series, kaapana_assets.supervision.record\n"
        f"os.setgroups([]); os.setgid({NOBODY_UID}); os.setuid({NOBODY_UID})\n"
        "sys.argv = ['kaapana-assets', 'query']; main()"
    )
    for named, said in ((home, "another user's"), (home / "below", "may not enter")):
        done = python(home, "-c", script, HOME="/", KAAPANA_HOME=str(named))
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_lock_files_are_for_their_owner_alone_also_those_of_earlier_versions(tmp_path: Path) -> None:
    old = tmp_path / "old.lock"
    old.touch(mode=0o644)
    old.chmod(0o644)
    for path in (old, tmp_path / "new.lock"):
        with open_lock(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not is_locked(tmp_path / "none.lock")
    assert not (tmp_path / "none.lock").exists()


@pytest.mark.parametrize("kind", ["link", "FIFO", "folder"])
def test_what_is_no_lock_file_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "platform.lock", tmp_path / "other"
    if kind == "link":
        path.symlink_to(other)
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(OSError, match="lock"):
        open_lock(path)
    with pytest.raises(ConfigurationError, match="lock"):
        lock_home(tmp_path)
    assert not other.exists()


@as_root
def test_operators_are_nobodys_account_unless_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    people = [each for each in pwd.getpwall() if each.pw_uid and each.pw_shell.endswith("sh")]
    if not people:
        pytest.skip("this machine has no account that a person logs in to, besides root's")
    monkeypatch.chdir(tmp_path)
    settings = load_settings(home=tmp_path / "home", runner="docker")
    assert (settings.operator_uid, settings.postgres_uid) == (OPERATOR_UID, POSTGRES_UID)
    check_operator_account(settings)
    assert strange_accounts(settings) == ""
    assert "processes of root" in strange_accounts(settings.model_copy(update={"runner": "process"}))
    by_chance = settings.model_copy(update={"operator_uid": people[0].pw_uid})
    by_chance.model_fields_set.discard("operator_uid")
    with pytest.raises(ConfigurationError, match=rf"{people[0].pw_name}.*KAAPANA_OPERATOR_UID"):
        check_operator_account(by_chance)
    named = load_settings(home=tmp_path / "home", runner="docker", operator_uid=people[0].pw_uid)
    check_operator_account(named)
    assert f"the account of {people[0].pw_name}" in strange_accounts(named)
    shared = load_settings(home=tmp_path / "home", runner="docker", operator_uid=NOBODY_UID)
    assert "`nobody`" in strange_accounts(shared)


REFUSED_FOR_POSTGRES = {
    "nobody": {"KAAPANA_POSTGRES_UID": str(NOBODY_UID)},
    "the operators'": {"KAAPANA_POSTGRES_UID": "4711", "KAAPANA_OPERATOR_UID": "4711"},
}


@as_root
@pytest.mark.parametrize("given", REFUSED_FOR_POSTGRES.values(), ids=REFUSED_FOR_POSTGRES)
def test_postgres_shares_its_user_with_nothing(home: Path, given: dict[str, str]) -> None:
    refused = kaapana(home, "up", "--webserver-port", "0", "--receiver-port", "0", "--health-port", "0", **given)
    assert refused.returncode == 2, refused.stdout
    assert "KAAPANA_POSTGRES_UID" in refused.stderr


def test_settings_name_users_of_their_own(tmp_path: Path) -> None:
    fields = Settings.model_fields
    assert fields["postgres_uid"].default not in (0, 1000, NOBODY_UID, fields["operator_uid"].default)
    assert fields["operator_uid"].default not in (0, 1000, NOBODY_UID) or os.geteuid()


def test_objects_that_operators_put_away_are_private(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        keep_private()
        (tmp_path / "source").write_text("x")
        (tmp_path / "source").chmod(0o6777)
        FolderObjects(tmp_path / "objects").put_file("bucket", "a/b", tmp_path / "source")
    finally:
        os.umask(before)
    made = everything(tmp_path / "objects")
    assert [path for path in made if path.stat().st_mode & 0o7077] == []


@as_root
@pytest.mark.system
def test_nobody_else_reaches_a_running_platform(open_folder: Path) -> None:
    platforms = Platforms()
    try:
        up = platforms.start(open_folder / "up")
        postgres = up.record.parts["postgres"]
        assert Path(f"/proc/{postgres}").stat().st_uid == POSTGRES_UID
        umasks = {name: _umask(pid) for name, pid in up.record.parts.items()}
        assert set(umasks.values()) == {0o077}, umasks
        paths = [*everything(up.home), *everything(Path(up.record.folder))]
        assert any(path.is_socket() for path in paths)
        owners = {path.lstat().st_uid for path in everything(up.home / "dagster" / "postgres" / "data")}
        assert owners == {POSTGRES_UID}
        assert reached(paths) == []
        assert reached(paths, uid=OPERATOR_UID) == []
        assert [path for path in up.home.rglob("*") if path.stat().st_mode & 0o077] == []
    finally:
        platforms.end()


def _umask(pid: int) -> int:
    return int(re.findall(r"^Umask:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[0], 8)
