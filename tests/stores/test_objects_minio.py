"""What the object store on S3 does beyond the contract: parts, digests, faults."""

import hashlib
import inspect
import io
import time
from concurrent.futures import ThreadPoolExecutor

import minio.error
import pytest
import urllib3
from services.plugin import service
from services.proxy import fault_proxy, http_answer
from stores.conftest import s3_connection, until

from kaapana_assets.errors import ConfigurationError, KaapanaAssetsError, NotFound, StoreUnavailable
from kaapana_assets.stores.objects.checksums import Checksums
from kaapana_assets.stores.objects.s3 import MinioObjects
from kaapana_assets.stores.objects.s3_connection import LIBRARY_ERRORS, translated

pytestmark = pytest.mark.services

MIB = 1 << 20


def digest(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(bytes(range(256)) * 1000)
    return path


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 5 * MIB + 1, 17 * MIB])
def test_files_of_any_size_are_sent_in_parts_and_checked(minio_server, minio_store, tmp_path, size):
    content = hashlib.shake_128(b"x").digest(size)
    (tmp_path / "source").write_bytes(content)
    store = MinioObjects(s3_connection(minio_server), part_bytes=5 * MIB)
    stored = store.put_file("results", "a", tmp_path / "source")
    assert (stored.size_bytes, stored.digest) == (size, digest(content))
    client = s3_connection(minio_server).open()
    found = client.stat_object("results", "a")
    assert found.etag == Checksums.of(io.BytesIO(content), part_bytes=5 * MIB).etag
    assert ("-" in found.etag) == (size > 5 * MIB)
    store.get_file("results", "a", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_objects_that_others_put_have_digests_and_bad_names_are_passed_over(minio_server, minio_store, file):
    minio_store.put_file("results", "ours", file)
    client = s3_connection(minio_server).open()
    client.put_object("results", "theirs", io.BytesIO(b"content"), 7)
    client.put_object("results", "folder/", io.BytesIO(b""), 0)
    assert {each.name: each.digest for each in minio_store.list("results")} == {
        "ours": digest(file.read_bytes()),
        "theirs": digest(b"content"),
    }


def test_content_that_is_not_what_was_stored_is_not_given(minio_server, minio_store, tmp_path):
    client = s3_connection(minio_server).open()
    client.make_bucket("results")
    client.put_object("results", "a", io.BytesIO(b"damaged"), 7, metadata={"sha256": "0" * 64})
    with pytest.raises(StoreUnavailable, match="results/a"):
        minio_store.get_file("results", "a", tmp_path / "into")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [http_answer(503), http_answer(429), b"", b"HTTP/1.1 200 OK\r\nCont"])
def test_passing_faults_are_waited_out(minio_server, minio_store, file, tmp_path, fault):
    with fault_proxy(minio_server.ports[0]) as proxy:
        connection = s3_connection(minio_server, endpoint=f"127.0.0.1:{proxy.port}", attempts=4)
        store = MinioObjects(connection)
        proxy.answers += [fault, fault]
        assert store.put_file("results", "a", file).digest == digest(file.read_bytes())
    with fault_proxy(minio_server.ports[0]) as proxy:
        connection = s3_connection(minio_server, endpoint=f"127.0.0.1:{proxy.port}", attempts=2, region="us-east-1")
        proxy.answers += [fault] * 20
        with pytest.raises(StoreUnavailable, match="results/a"):
            MinioObjects(connection).get_file("results", "a", tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_a_server_that_is_killed_and_started_again_has_all_whole(tmp_path, caplog):
    contents = {f"{number}": hashlib.shake_128(bytes([number])).digest(6 * MIB) for number in range(12)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with service("minio", tmp_path / "server") as running:
        store = MinioObjects(s3_connection(running, attempts=10), part_bytes=5 * MIB)
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(lambda: [store.put_file("results", name, tmp_path / name) for name in contents])
            until(lambda: "results" in store.buckets() and any(store.list("results")))
            running.kill()
            until(lambda: "trying again" in caplog.text)
            running.start()
            done.result()
        assert {each.name: each.digest for each in store.list("results")} == {
            name: digest(content) for name, content in contents.items()
        }
        running.kill()
        short = MinioObjects(s3_connection(running, attempts=2))
        for use in (short.buckets, lambda: short.exists("results", "1"), lambda: short.open_read("results", "1")):
            with pytest.raises(StoreUnavailable, match="try again"):
                use()


def test_a_server_that_hangs_is_left_after_the_timeout(tmp_path, file):
    with service("minio", tmp_path / "server") as running:
        store = MinioObjects(s3_connection(running, attempts=2, timeout_s=0.5))
        running.pause()
        begin = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.put_file("results", "a", file)
        assert time.monotonic() - begin < 5
        running.resume()


def test_wrong_credentials_name_the_settings_and_not_the_secret(minio_server, minio_store):
    store = MinioObjects(s3_connection(minio_server, secret_key="not-this-one"))
    with pytest.raises(ConfigurationError, match="KAAPANA_S3_SECRET_KEY") as caught:
        store.buckets()
    assert "not-this-one" not in repr(caught.value)
    assert "not-this-one" not in repr(s3_connection(minio_server, secret_key="not-this-one"))


def test_a_link_expires(minio_store, file):
    minio_store.put_file("results", "a", file)
    link = minio_store.download_link("results", "a", expires_s=1)
    with urllib3.PoolManager() as pool:
        until(lambda: pool.request("GET", link).status == 403)


@pytest.mark.parametrize(
    ("code", "expected"),
    {
        "NoSuchKey": NotFound,
        "SlowDown": StoreUnavailable,
        "AccessDenied": ConfigurationError,
        "Odd": StoreUnavailable,
    }.items(),
)
def test_codes_of_the_server_say_what_can_be_done(code, expected):
    answer = urllib3.HTTPResponse(status=400)
    exc = minio.error.S3Error(answer, code, "text", "resource", "request", "host")
    assert type(translated(exc, what="object a/b", where="the store")) is expected


def exceptions_of(*modules):
    found = {kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)}
    return sorted((kind for kind in found if issubclass(kind, Exception) and not issubclass(kind, Warning)), key=repr)


MADE = {
    minio.error.S3Error: lambda: minio.error.S3Error(urllib3.HTTPResponse(), "Any", "text", "res", "request", "host")
}


@pytest.mark.parametrize("kind", exceptions_of(minio.error, urllib3.exceptions), ids=lambda kind: kind.__qualname__)
def test_every_error_of_the_libraries_is_translated(kind):
    assert issubclass(kind, LIBRARY_ERRORS)
    exc = MADE[kind]() if kind in MADE else kind.__new__(kind)
    assert isinstance(translated(exc, what="object a/b", where="the store"), KaapanaAssetsError)
