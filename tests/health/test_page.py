"""The health page over HTTP, as ``kaapana-assets health`` serves it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from health.conftest import all_stores_at, command_environment

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.health.health_check import HealthCheck
from kaapana_assets.health.server import CachedReport
from kaapana_assets.ingest.spool import open_spool
from kaapana_assets.settings import load_settings

Serving = tuple[str, subprocess.Popen[str]]


@contextmanager
def serving(home: Path, folder: Path, **variables: str) -> Iterator[Serving]:
    """The page on a free port, ended as the supervisor ends it."""
    ready = folder / "ready"
    process = subprocess.Popen(
        [sys.executable, "-m", "kaapana_assets", "health", "--port", "0", "--ready-file", str(ready)],
        env=command_environment(home, **{"KAAPANA_RECEIVER_PORT": "0"} | variables),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield ready.read_text().strip(), process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def wait_for(status: int, url: str) -> requests.Response:
    deadline = time.monotonic() + 15
    while (answer := requests.get(url, timeout=10)).status_code != status:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.2)
    return answer


def test_the_page_says_what_works_and_turns_503_and_back(home, tmp_path):
    with serving(home, tmp_path) as (url, _):
        page = requests.get(url, timeout=10)
        assert page.status_code == 200
        assert page.headers["Content-Type"].startswith("text/html")
        for said in ("PACS", "SQLite", f"folder {home}/archive", "no platform is up", 'http-equiv="refresh"'):
            assert said in page.text
        assert "script" not in page.text
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
        (home / "objects").write_text("no folder")
        page = wait_for(503, url)
        assert "objects: not working" in page.text
        said = requests.get(f"{url}health.json", timeout=10)
        assert (said.status_code, said.json()["ok"]) == (503, False)
        assert said.json()["findings"]["objects"]["state"] == "broken"
        assert requests.get(f"{url}live", timeout=10).status_code == 200
        (home / "objects").unlink()
        assert wait_for(200, f"{url}health.json").json()["ok"] is True
        assert requests.get(f"{url}other", timeout=10).status_code == 404


def test_json_is_what_the_command_prints(home, tmp_path, kaapana):
    with serving(home, tmp_path) as (url, _):
        page = requests.get(f"{url}health.json", timeout=10).json()
    printed = json.loads(kaapana("status", "--json", KAAPANA_RECEIVER_PORT="0").stdout)
    assert page.keys() == printed.keys()
    assert page["findings"].keys() == printed["findings"].keys()
    assert page["findings"]["receiver"] == printed["findings"]["receiver"]


def test_what_senders_and_files_say_is_text_and_no_html(home, tmp_path, settings_of):
    source = tmp_path / "bad.dcm"
    source.write_text("x")
    spool = open_spool(settings_of())
    spool.prepare()
    spool.quarantine_copy(source, "<script>alert('reason')</script>")
    with serving(home, tmp_path) as (url, _):
        page = requests.get(url, timeout=10).text
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#x27;reason&#x27;)&lt;/script&gt;" in page


ODD_NAMES = {
    "latin-1": b"bad\xe9.dcm",
    "line break": b"two\nlines.dcm",
    "terminal control": b"\x1b]0;title\x07.dcm",
    "markup": b"<img src=x>&quot;.dcm",
    "direction of writing": "\u202emcd.dcm".encode(),
    "255 bytes": b"x" * 251 + b".dcm",
    "DEL and C1": b"a\x7f\xc2\x9b.dcm",
}


def test_names_of_any_bytes_are_shown_on_page_in_json_and_by_the_commands(home, tmp_path, kaapana):
    """By import, whose messages and notes they go through, and in the folders themselves."""
    folder = tmp_path / os.fsdecode(b"from \xe9\n")
    folder.mkdir()
    for number, name in enumerate(ODD_NAMES.values()):
        (folder / os.fsdecode(name)).write_bytes(bytes(128) + b"DICM" + bytes([number]))
    done = kaapana("import", str(folder))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "bad\\xe9.dcm: " in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.startswith("quarantined ")]) == len(ODD_NAMES)
    kept = home / "quarantine" / "unknown" / os.fsdecode(b"by hand \xe9<\n")
    kept.write_bytes(b"x")
    kept.with_name(f"{kept.name}.json").write_bytes(b'{"reason": "\xff", "time": 1}')
    (home / "incoming" / os.fsdecode(b"no series \xe9\x1b")).mkdir()
    (home / "cohorts").mkdir()
    (home / "cohorts" / os.fsdecode(b"odd\xe9.json")).write_text("{}")
    with serving(home, tmp_path) as (url, _):
        page, said = requests.get(url, timeout=10), requests.get(f"{url}health.json", timeout=10)
    assert (page.status_code, said.status_code) == (200, 200)
    assert page.text.endswith("</html>\n")
    assert "<img" not in page.text
    assert len(said.json()["errors"]) == 5
    assert "by hand \\xe9&lt;\\n" in page.text
    shown = kaapana("status")
    assert shown.returncode == 0, shown.stderr
    for text in (page.text, said.text, done.stdout, shown.stdout):
        assert not {char for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Cs")}
    listed = kaapana("cohort", "list")
    assert (listed.returncode, listed.stdout) == (0, "")


def test_it_lives_while_a_check_hangs_and_ends_soon_when_asked(home, tmp_path, silent_port):
    with serving(home, tmp_path, **all_stores_at(silent_port)) as (url, process):
        asking = threading.Thread(target=_ask_and_forget, args=(url,))
        asking.start()
        assert requests.get(f"{url}live", timeout=30).status_code == 200
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        asking.join()


def _ask_and_forget(url: str) -> None:
    try:
        requests.get(url, timeout=10)
    except requests.ConnectionError:
        return


def test_a_taken_port_is_said_with_its_setting(kaapana):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = kaapana("health", "--port", port)
    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr
    assert "KAAPANA_HEALTH_PORT" in done.stderr


def test_it_never_listens_elsewhere(monkeypatch):
    monkeypatch.setenv("KAAPANA_HEALTH_HOST", "0.0.0.0")
    with pytest.raises(ConfigurationError, match=r"KAAPANA_HEALTH_HOST=0\.0\.0\.0 is not loopback"):
        load_settings()


@pytest.fixture
def quick_check(settings_of) -> HealthCheck:
    settings = settings_of(KAAPANA_RECEIVER_PORT="0")
    return HealthCheck(settings, platform=lambda: None, storage=lambda: None)


def test_many_readers_share_one_report(quick_check):
    made = []

    def make():
        made.append(1)
        return quick_check.report()

    kept = CachedReport(make, max_age_s=60)
    reports = _at_once(kept, 20)
    assert len({id(report) for report in reports}) == 1
    assert len(made) == 1


def test_a_report_is_made_again_when_it_is_old(quick_check):
    kept = CachedReport(quick_check.report, max_age_s=0)
    assert kept() is not kept()


def _at_once(call: Callable[[], object], count: int) -> list[object]:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(call())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
