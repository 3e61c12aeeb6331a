"""Elasticsearch: the real server from Maven Central, started by a small launcher.

Maven Central has no Elasticsearch distribution, but the jars of the server; what the distribution
adds as modules is absent (scripts, ingest, reindex, security). The product uses none of that.
``KAAPANA_SERVICES_ELASTICSEARCH_VERSION=8.19.0`` takes an older server; what differs between majors in
the launcher and the plugin is in folders named after them.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from services.service import Missing, Plan, cached, run_build

SOURCES = Path(__file__).with_name("elasticsearch_server")
_OLDEST_JDK = 21
_ZSTD = Path("/usr/lib") / f"{platform.machine()}-linux-gnu" / "libzstd.so.1"
# The launcher stands where the distribution's own scripts do: these switch off what its jars expect
# of a distribution (native code that is not on Maven Central).
_JVM_OPTIONS = (
    "-XX:+UseSerialGC",
    "--enable-native-access=ALL-UNNAMED",
    "-Dorg.elasticsearch.nativeaccess.enableVectorLibrary=false",
    "-Dio.netty.noUnsafe=true",
    "-Dio.netty.noKeySetOptimization=true",
)
# Its breaker counts garbage as used, and makes only the other collector (G1) clear it away: with this
# one it would refuse all requests for good once the heap is full of garbage.
_SETTINGS = ("indices.breaker.total.use_real_memory=false",)


class Elasticsearch:
    """One node, 512 MB of heap (``KAAPANA_SERVICES_ELASTICSEARCH_HEAP``), without replicas of its own."""

    name = "elasticsearch"
    ports = 1

    def prepare(self) -> None:
        """Needs a JDK 21 or newer, and Maven for the first time."""
        self._java = _jdk() / "bin"
        digest = hashlib.sha256()
        for source in sorted(path for path in SOURCES.rglob("*") if path.is_file()):
            digest.update(source.name.encode() + source.read_bytes())
        pinned = re.search(r"<elasticsearch.version>(.*?)<", (SOURCES / "pom.xml").read_text())
        assert pinned is not None
        self._version = os.environ.get("KAAPANA_SERVICES_ELASTICSEARCH_VERSION") or pinned[1]
        if not (SOURCES / self._major).is_dir():
            raise Missing(f"a launcher for version {self._version}: there are some for 8.19 and 9")
        self._build = cached(f"elasticsearch-{self._version}-{digest.hexdigest()[:12]}", self._make)

    @property
    def _major(self) -> str:
        return self._version.partition(".")[0]

    def plan(self, folder: Path, ports: Sequence[int]) -> Plan:
        """See ``Service.plan``."""
        home = folder / "elasticsearch"
        native = home / "lib" / "platform" / ("linux-x64" if platform.machine() == "x86_64" else "linux-aarch64")
        native.mkdir(parents=True, exist_ok=True)
        if _ZSTD.exists() and not (native / "libzstd.so").is_symlink():
            (native / "libzstd.so").symlink_to(_ZSTD)
        heap = os.environ.get("KAAPANA_SERVICES_ELASTICSEARCH_HEAP", "512m")
        build = self._build
        command = [
            str(self._java / "java"), f"-Xms{heap}", f"-Xmx{heap}", *_JVM_OPTIONS, f"-Des.path.home={home}",
            "-cp", f"{build}/server.jar:{build}/lib/*", "ElasticsearchNode",
            str(home), f"{build}/netty", f"{build}/rest.jar", str(ports[0]), *_SETTINGS,
        ]  # fmt: skip
        url = f"http://127.0.0.1:{ports[0]}"
        settings = {
            "KAAPANA_INDEX": "elasticsearch",
            "KAAPANA_ELASTICSEARCH_URLS": url,
            "KAAPANA_ELASTICSEARCH_REPLICAS": "0",
        }
        return Plan(command, lambda: answers(url), settings)

    def _make(self, into: Path) -> None:
        if shutil.which("mvn") is None:
            raise Missing("Maven (mvn), which fetches the server's jars")
        shutil.copytree(SOURCES, into, dirs_exist_ok=True)
        everything, lib, netty = into / "all", into / "lib", into / "netty"
        fetch = ["mvn", "-B", "-q", "--no-transfer-progress", "dependency:copy-dependencies"]
        fetch += [f"-Delasticsearch.version={self._version}", f"-DoutputDirectory={everything}"]
        run_build(fetch, folder=into, JAVA_HOME=str(self._java.parent))
        lib.mkdir()
        netty.mkdir()
        for jar in list(everything.iterdir()):
            in_netty = jar.name.startswith(("transport-netty4-", "netty-", "elasticsearch-ssl-config-"))
            jar.rename((netty if in_netty else lib) / jar.name)
        for name, folder in (("server", "launcher"), ("rest", "rest")):
            classes = into / f"{name}-classes"
            both = (into / folder, into / self._major / folder)
            sources = sorted(source for place in both for source in place.rglob("*.java"))
            compiler = [self._java / "javac", "--release", "21", "-nowarn", "-cp", f"{lib}/*", "-d", classes]
            run_build([*compiler, *sources], folder=into)
            run_build([self._java / "jar", "cf", into / f"{name}.jar", "-C", classes, "."], folder=into)


def answers(url: str, statuses: Sequence[int] = (200,)) -> bool:
    """Whether an HTTP server gives one of these statuses at a URL."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status) in statuses
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code in statuses
    except (OSError, urllib.error.URLError):
        return False


def _jdk() -> Path:
    """The oldest JDK that is new enough: named in the environment, beside the default one, or on the path."""
    found = []
    for home in _jdk_homes():
        release = home / "release"
        version = re.search(r'JAVA_VERSION="(\d+)', release.read_text()) if release.is_file() else None
        if version and int(version[1]) >= _OLDEST_JDK and (home / "bin" / "javac").exists():
            found.append((int(version[1]), home))
    if not found:
        raise Missing(f"a JDK {_OLDEST_JDK} or newer (JAVA_HOME, or in /usr/lib/jvm)")
    return min(found)[1]


def _jdk_homes() -> Iterator[Path]:
    for name in ("ES_JAVA_HOME", "JAVA_HOME"):
        if os.environ.get(name):
            yield Path(os.environ[name])
    javac = shutil.which("javac")
    if javac:
        yield Path(javac).resolve().parent.parent
    for folder in (Path("/usr/lib/jvm"), Path("/opt"), Path.home() / ".sdkman" / "candidates" / "java"):
        yield from sorted(folder.glob("*"))
