"""A real browser, for tests of what web pages can do: Chromium without a window, steered over its protocol."""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websocket

_START_S = 60
_ANSWER_S = 60


class Page:
    """One page of the browser."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket = socket
        self._last = 0

    def open(self, url: str) -> None:
        """Go to an address, as if it was typed."""
        self._ask("Page.navigate", url=url)
        self.wait_for("document.readyState == 'complete'")

    def evaluate(self, script: str) -> Any:
        """The value of JavaScript on the page; promises are waited for."""
        answer = self._ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, script: str, timeout_s: float = _ANSWER_S) -> None:
        """Until the script is true on the page."""
        deadline = time.monotonic() + timeout_s
        while not self.evaluate(script):
            assert time.monotonic() < deadline, f"{script}: {self.evaluate('document.body?.innerText')}"
            time.sleep(0.2)

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]


@contextmanager
def browser(folder: Path, *, names: str) -> Iterator[Page]:
    """A page of a new browser.

    Args:
        folder: of its profile, made.
        names: Chromium's rules of how host names are resolved, such as ``MAP evil.example 127.0.0.1``.
    """
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail("needs Chromium (Debian package chromium)")
        pytest.skip("needs Chromium (Debian package chromium)")
    with (folder.parent / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--disable-background-networking", "--no-proxy-server", "--remote-debugging-port=0",
                "--remote-allow-origins=*", f"--user-data-dir={folder}", f"--host-resolver-rules={names}",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _START_S
        told = folder / "DevToolsActivePort"
        while not told.exists() or not told.read_text():
            assert process.poll() is None, log.name
            assert time.monotonic() < deadline, log.name
            time.sleep(0.1)
        port = told.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as listed:
            (page, *_) = [each for each in json.load(listed) if each["type"] == "page"]
        socket = websocket.create_connection(page["webSocketDebuggerUrl"], timeout=_ANSWER_S)
        try:
            yield Page(socket)
        finally:
            socket.close()
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
