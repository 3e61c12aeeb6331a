"""What web pages can make a running platform do: nothing, while its own pages and scripts work."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, urlsplit

import pytest
import requests
import websocket
from security.browser import browser
from security.raw_requests import ATTACKS as RAW_ATTACKS
from security.raw_requests import answers
from system.conftest import RunningPlatform, module_platforms  # noqa: F401 - a fixture

from kaapana_assets.graphql import documents

pytestmark = pytest.mark.system

JSON = {"Content-Type": "application/json"}
FOREIGN = "http://evil.example"


@pytest.fixture(scope="module")
def up(module_platforms) -> RunningPlatform:  # noqa: F811 - the fixture
    return module_platforms.start()


def adding(key: str) -> dict:
    """A mutation that leaves a mark: it adds a partition."""
    repository = {"repositoryName": "__repository__", "repositoryLocationName": "kaapana_assets"}
    return {
        "query": documents.ADD_PARTITION,
        "variables": {"key": key, "definition": "series", "repository": repository},
    }


def as_parameters(key: str) -> str:
    asked = adding(key)
    return f"query={quote(asked['query'])}&variables={quote(json.dumps(asked['variables']))}"


def added(up: RunningPlatform) -> set[str]:
    found = up.dagster.partition_status("dicom_series")
    return set(found.materialized | found.missing | found.failed)


ATTACKS = {
    "page that posts JSON": lambda url: requests.post(
        f"{url}/graphql", json=adding("attack"), headers={"Origin": FOREIGN}, timeout=30
    ),
    "rebound name": lambda url: requests.post(
        f"{url}/graphql", json=adding("attack"), headers={"Host": "evil.example"}, timeout=30
    ),
    "rebound page": lambda url: requests.post(
        f"{url}/graphql",
        json=adding("attack"),
        headers={"Host": "evil.example:3000", "Origin": "http://evil.example:3000", "Sec-Fetch-Site": "same-origin"},
        timeout=30,
    ),
    "plain text": lambda url: requests.post(
        f"{url}/graphql", data=json.dumps(adding("attack")), headers={"Content-Type": "text/plain"}, timeout=30
    ),
    "plain text that names JSON": lambda url: requests.post(
        f"{url}/graphql",
        data=json.dumps(adding("attack")),
        headers={"Content-Type": "text/plain; application/json"},
        timeout=30,
    ),
    "parameters of a form": lambda url: requests.post(
        f"{url}/graphql?{as_parameters('attack')}",
        data="a=b",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        timeout=30,
    ),
    "link": lambda url: requests.get(f"{url}/graphql?{as_parameters('attack')}", timeout=30),
    "link with a line feed": lambda url: requests.get(f"{url}/graphql%0A?{as_parameters('attack')}", timeout=30),
    "form of another site": lambda url: requests.post(
        f"{url}/graphql",
        json=adding("attack"),
        headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        timeout=30,
    ),
    "notebook that a page has let download": lambda url: requests.get(
        f"{url}/notebook?path=/home/somebody/Downloads/x.ipynb&repoLocName=kaapana_assets",
        headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        timeout=30,
    ),
    "report of a result": lambda url: requests.post(
        f"{url}/report_asset_materialization/dicom_series?partition=attack", timeout=30
    ),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_no_page_changes_anything(up, attack):
    answer = attack(up.record.dagster_url)
    assert answer.status_code in (403, 405, 415)
    assert answer.text.startswith("refused: ")
    assert "attack" not in added(up)


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": FOREIGN}, {"Sec-Fetch-Site": "cross-site"}])
def test_no_page_learns_anything(up, headers):
    record = up.record
    for url in (f"{record.dagster_url}/graphql?query={{version}}", f"{record.dagster_url}/server_info"):
        assert requests.get(url, headers=headers, timeout=30).status_code == 403
    for path in ("", "health.json", "live"):
        assert requests.get(record.health_url + path, headers=headers, timeout=30).status_code == 403


def test_scripts_and_curl_work_as_before(up):
    record = up.record
    assert requests.get(f"{record.dagster_url}/graphql?query={{version}}", timeout=30).json()["data"]["version"]
    answer = requests.post(f"{record.dagster_url}/graphql", json=adding("1.2.3"), timeout=30)
    assert "error" not in answer.text.lower()
    assert "1.2.3" in added(up)
    report = f"{record.dagster_url}/report_asset_materialization/dicom_series?partition=1.2.3"
    assert requests.post(report, json={}, timeout=30).json() == {}
    curl = ["curl", "-sS", "-H", "Content-Type: application/json", "-d", '{"query": "{version}"}']
    said = subprocess.run([*curl, f"{record.dagster_url}/graphql"], capture_output=True, text=True, check=True)
    assert json.loads(said.stdout)["data"]["version"]
    assert requests.get(f"{record.health_url}health.json", timeout=30).json()["is_up"] is True
    assert requests.get(f"{record.dagster_url}/runs", headers={"Accept": "text/html"}, timeout=30).status_code == 200


def open_socket(up: RunningPlatform, **given: object) -> websocket.WebSocket:
    url = up.record.dagster_url.replace("http:", "ws:") + "/graphql"
    return websocket.create_connection(url, subprotocols=["graphql-ws"], timeout=30, **given)


@pytest.mark.parametrize("given", [{"origin": FOREIGN}, {"suppress_origin": True}, {"host": "evil.example"}])
def test_no_other_page_opens_a_web_socket(up, given):
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        open_socket(up, **given)


def test_the_web_ui_opens_its_web_socket(up):
    opened = open_socket(up, origin=up.record.dagster_url)
    opened.send(json.dumps({"type": "connection_init"}))
    assert json.loads(opened.recv()) == {"type": "connection_ack"}
    opened.close()


def test_no_raw_request_changes_anything(up):
    """As the same requests in test_raw_requests.py, to Dagster itself behind the checks."""
    port = urlsplit(up.record.dagster_url).port
    for name, attack in RAW_ATTACKS.items():
        said = answers(port, attack(port, json.dumps(adding("raw")).encode(), as_parameters("raw")))
        assert said.split()[1] in (b"400", b"403", b"405", b"415"), (name, said[:200])
    assert "raw" not in added(up)


@pytest.mark.parametrize("protocol", ["graphql-ws", "graphql-transport-ws"])
def test_a_web_socket_changes_nothing_whatever_it_is_told(up, protocol):
    """The web UI changes nothing by it, so that a page with a way to open one gains nothing."""
    payload = adding(f"socket-{protocol}")
    with closing(raw_socket(up, protocol)) as opened:
        for kind in ("connection_init", "start", "subscribe", "next", "query"):
            opened.send(json.dumps({"type": kind, "id": kind, "payload": payload}))
        said = [json.loads(opened.recv()) for _ in range(2)]
    assert [each["type"] for each in said] == ["connection_ack", "error"]
    assert payload["variables"]["key"] not in added(up)


def raw_socket(up: RunningPlatform, protocol: str) -> websocket.WebSocket:
    # The server answers with its own protocol, whatever was asked for.
    url = up.record.dagster_url.replace("http:", "ws:") + "/graphql"
    header = [f"Sec-WebSocket-Protocol: {protocol}"]
    return websocket.create_connection(url, header=header, origin=up.record.dagster_url, timeout=30)


EVIL_PAGE = """<!doctype html><title>evil</title><body><iframe id=frame name=frame></iframe><script>
const target = "%(url)s", text = %(text)s, link = "%(link)s";
const tried = {};
async function attempt(name, what) {
    try { const answer = await what(); tried[name] = answer; } catch (error) { tried[name] = "stopped"; }
}
function socket(url) {
    return new Promise((done, failed) => {
        const opened = new WebSocket(url, "graphql-ws");
        opened.onopen = () => done("open");
        opened.onerror = failed;
    });
}
function image(url) {
    return new Promise((done) => {
        const made = new Image();
        made.onload = made.onerror = () => done("asked");
        made.src = url;
    });
}
function form(kind, name, value) {
    const made = document.createElement("form");
    Object.assign(made, {method: "POST", action: target + "/graphql?" + link, enctype: kind, target: "frame"});
    const field = document.createElement("input");
    Object.assign(field, {name: name, value: value});
    made.append(field);
    document.body.append(made);
    return new Promise((done) => {
        document.getElementById("frame").onload = () => done("sent");
        setTimeout(() => done("sent"), 3000);
        made.submit();
    });
}
async function attack() {
    const plain = {method: "POST", mode: "no-cors", body: text};
    await attempt("text", async () => (await fetch(target + "/graphql", plain)).type);
    const typed = {...plain, headers: {"Content-Type": "text/plain; application/json"}};
    await attempt("typed", async () => (await fetch(target + "/graphql", typed)).type);
    const asked = {method: "POST", body: text, headers: {"Content-Type": "application/json"}};
    await attempt("json", async () => (await fetch(target + "/graphql", asked)).status);
    await attempt("read", async () => await (await fetch(target + "/server_info")).text());
    await attempt("image", () => image(target + "/graphql?" + link));
    await attempt("form", () => form("text/plain", text.slice(0, -1) + ', "x": "', '"}'));
    await attempt("fields", () => form("application/x-www-form-urlencoded", "a", "b"));
    await attempt("socket", () => socket(target.replace("http:", "ws:") + "/graphql"));
    return tried;
}
</script>"""


@contextmanager
def serving(page: str) -> Iterator[int]:
    """The page of somebody else, on a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_a_real_browser_shows_the_web_ui_and_lets_no_other_page_through(up, tmp_path):
    url = up.record.dagster_url
    port = urlsplit(url).port
    page = EVIL_PAGE % {"url": url, "text": json.dumps(json.dumps(adding("browser"))), "link": as_parameters("browser")}
    log = up.home / "logs" / "webserver.log"
    with browser(tmp_path / "profile", names="MAP *.example 127.0.0.1") as shown, serving(page) as evil:
        before = log.read_text()
        shown.open(f"{url}/assets")
        shown.wait_for("document.body?.innerText.includes('dicom_series')")
        opened = """new Promise((done) => {
            const socket = new WebSocket(location.origin.replace('http', 'ws') + '/graphql', 'graphql-ws');
            socket.onopen = () => { socket.close(); done('open'); };
            socket.onerror = () => done('failed');
        })"""
        assert shown.evaluate(opened) == "open"
        asked = "fetch('/graphql', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: %s})"
        script = f"{asked % json.dumps(json.dumps(adding('own')))}.then((answer) => answer.status)"
        assert shown.evaluate(script) == 200
        assert log.read_text() == before, "requests of the web UI were refused"
        assert "own" in added(up)

        # Of another site, and of this machine at another port.
        for host in ("evil.example", "127.0.0.1"):
            shown.open(f"http://{host}:{evil}/")
            tried = shown.evaluate("attack()")
            assert (tried["json"], tried["read"], tried["socket"]) == ("stopped", "stopped", "stopped"), tried
            assert "browser" not in added(up)
            assert "a request was refused" in log.read_text()
        # Whose name is resolved anew, to this machine.
        shown.open(f"http://rebound.example:{port}/graphql?query={{version}}")
        assert "rebound.example" in shown.evaluate("document.body.innerText")
        assert "KAAPANA_ALLOWED_HOSTS" in shown.evaluate("document.body.innerText")
        # A link from elsewhere is what people follow.
        shown.open(f"http://evil.example:{evil}/")
        shown.evaluate(f"location.href = '{url}/runs'")
        shown.wait_for("location.pathname == '/runs' && document.body?.innerText.includes('Runs')")


def test_dagsters_options_and_variables_work_below_a_path(tmp_path, free_port):
    """What stands alone behind a proxy: the same program without the platform around it."""
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (tmp_path / "nothing.py").write_text("import dagster as dg\ndefs = dg.Definitions()\n")
    variables = {"DAGSTER_WEBSERVER_PATH_PREFIX": "/dagster", "KAAPANA_ALLOWED_HOSTS": "pacs.example"}
    variables |= {"DAGSTER_HOME": str(tmp_path), "KAAPANA_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "kaapana_assets.defs.webserver", "--port", str(free_port), "-f", "nothing.py"]
    url = f"http://127.0.0.1:{free_port}/dagster/graphql"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | variables, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                answer = requests.post(url, json={"query": "{version}"}, timeout=30)
                break
            except requests.ConnectionError:
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.2)
        assert answer.json()["data"]["version"]
        browsers = {"Origin": "https://pacs.example"}
        assert requests.post(url, json={"query": "{version}"}, headers=browsers, timeout=30).status_code == 200
        browsers = {"Host": "pacs.example", "Origin": "https://pacs.example"}
        assert requests.post(url, json={"query": "{version}"}, headers=browsers, timeout=30).status_code == 200
        assert requests.get(f"{url}?query=mutation{{x}}", timeout=30).status_code == 405
        opened = websocket.create_connection(
            url.replace("http:", "ws:"), subprotocols=["graphql-ws"], origin="https://pacs.example", timeout=30
        )
        opened.close()
    finally:
        process.terminate()
        process.wait(30)
