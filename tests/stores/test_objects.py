"""What every object store promises, and what the folder store does besides."""

from __future__ import annotations

import hashlib
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kaapana_assets.errors import ConflictingContent, InvalidIdentifier, NotFound
from kaapana_assets.stores.objects.folder import FolderObjects
from kaapana_assets.stores.objects.protocol import ObjectStore, StoredObject, checked_bucket, checked_object_name


@pytest.fixture(params=["folder", pytest.param("minio", marks=pytest.mark.services)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return FolderObjects(tmp_path / "objects")
    store: ObjectStore = request.getfixturevalue("minio_store")
    return store


@pytest.fixture
def put(store: ObjectStore, tmp_path: Path) -> Callable[..., StoredObject]:
    def put_bytes(name: str, content: bytes = b"content", bucket: str = "results") -> StoredObject:
        file = tmp_path / "source"
        file.write_bytes(content)
        return store.put_file(bucket, name, file)

    return put_bytes


def content_of(store: ObjectStore, bucket: str, name: str) -> bytes:
    with store.open_read(bucket, name) as file:
        return file.read()


def test_what_was_put_is_got_back(store: ObjectStore, put: Callable[..., StoredObject], tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000
    stored = put("1.2.3/volume.nrrd", content)
    assert stored == StoredObject(
        bucket="results",
        name="1.2.3/volume.nrrd",
        size_bytes=len(content),
        digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
    )
    into = tmp_path / "new" / "folder" / "file"
    assert store.get_file("results", "1.2.3/volume.nrrd", into) == stored
    assert into.read_bytes() == content_of(store, "results", "1.2.3/volume.nrrd") == content
    assert [*into.parent.iterdir()] == [into]
    assert list(store.list("results")) == [stored]


def test_an_object_is_replaced(store: ObjectStore, put: Callable[..., StoredObject]) -> None:
    put("a", b"first")
    second = put("a", b"second")
    assert content_of(store, "results", "a") == b"second"
    assert list(store.list("results")) == [second]


def test_objects_are_listed_by_prefix_in_the_order_of_their_names(
    store: ObjectStore, put: Callable[..., StoredObject]
) -> None:
    names = ["a/b", "a-b", "a/c/d", "a/é", "ab", "b"]
    for name in names:
        put(name)
    assert [found.name for found in store.list("results")] == ["a-b", "a/b", "a/c/d", "a/é", "ab", "b"]
    assert [found.name for found in store.list("results", "a/")] == ["a/b", "a/c/d", "a/é"]
    assert [found.name for found in store.list("results", "a/c")] == ["a/c/d"]
    assert [found.name for found in store.list("results", "a")] == ["a-b", "a/b", "a/c/d", "a/é", "ab"]
    assert list(store.list("results", "../results")) == []
    assert list(store.list("results", "no/such/")) == []


def test_buckets_come_with_their_first_object_and_stay(store: ObjectStore, put: Callable[..., StoredObject]) -> None:
    assert store.buckets() == ()
    put("x", bucket="second")
    put("x", bucket="first")
    store.delete("first", "x")
    assert store.buckets() == ("first", "second")
    assert list(store.list("first")) == []


def test_a_deleted_object_is_gone_and_its_name_free(store: ObjectStore, put: Callable[..., StoredObject]) -> None:
    put("a/b/c")
    assert store.exists("results", "a/b/c")
    store.delete("results", "a/b/c")
    assert not store.exists("results", "a/b/c")
    put("a")
    assert store.exists("results", "a")


def test_what_is_not_there_is_not_found(store: ObjectStore, put: Callable[..., StoredObject], tmp_path: Path) -> None:
    put("a/b")
    for bucket, name in [
        ("results", "c"),
        ("nothing", "a"),
        ("results", "a"),
        ("results", "a/c/d"),
        ("results", "a/b/c"),
    ]:
        assert not store.exists(bucket, name)
        with pytest.raises(NotFound, match=f"{bucket}/{name}"):
            store.open_read(bucket, name)
        with pytest.raises(NotFound):
            store.get_file(bucket, name, tmp_path / "into")
        with pytest.raises(NotFound):
            store.delete(bucket, name)
    assert not (tmp_path / "into").exists()
    with pytest.raises(NotFound, match="nothing"):
        list(store.list("nothing"))
    with pytest.raises(NotFound, match="no-such-file"):
        store.put_file("results", "x", tmp_path / "no-such-file")


def test_a_reader_keeps_what_it_opened(store: ObjectStore, put: Callable[..., StoredObject]) -> None:
    put("a", b"first" * 100_000)
    with store.open_read("results", "a") as reader:
        put("a", b"other")
        assert reader.read() == b"first" * 100_000


def test_writers_at_once_leave_one_whole_object(store: ObjectStore, tmp_path: Path) -> None:
    start = threading.Barrier(4)

    def write(number: int) -> str:
        file = tmp_path / f"source-{number}"
        file.write_bytes(bytes([number]) * 300_000)
        start.wait()
        for _ in range(10):
            stored = store.put_file("results", "deep/in/folders", file)
            with pytest.raises(NotFound):
                store.delete("results", "deep/in/other")
        return stored.digest

    with ThreadPoolExecutor(4) as pool:
        digests = set(pool.map(write, range(4)))
    (found,) = store.list("results")
    assert found.digest in digests
    content = content_of(store, "results", "deep/in/folders")
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == found.digest


def test_a_link_gives_the_object_to_who_has_it(store: ObjectStore, put: Callable[..., StoredObject]) -> None:
    put("a b/é.txt", b"content")
    with urllib.request.urlopen(store.download_link("results", "a b/é.txt", expires_s=60)) as answer:
        assert answer.read() == b"content"
    with pytest.raises(NotFound):
        store.download_link("results", "b", expires_s=60)
    with pytest.raises(InvalidIdentifier, match="604800"):
        store.download_link("results", "a b/é.txt", expires_s=604801)


BAD_NAMES = {
    "empty": "",
    "parent": "../x",
    "inner parent": "a/../../x",
    "dot": "a/./b",
    "absolute": "/etc/passwd",
    "empty part": "a//b",
    "ends with slash": "a/",
    "backslash": "a\\b",
    "NUL": "a\0b",
    "newline": "a\nb",
    "long": "a/" * 600 + "a",
    "long part": "a" * 256,
    "long in bytes": "é/" * 500 + "a",
    "no Unicode": "a\udcff",
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_object_names_that_are_no_safe_path_are_refused(store: ObjectStore, name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for use in (
        lambda: store.put_file("results", name, tmp_path / "file"),
        lambda: store.open_read("results", name),
        lambda: store.delete("results", name),
        lambda: store.exists("results", name),
    ):
        with pytest.raises(InvalidIdentifier):
            use()


@pytest.mark.parametrize("name", ["a", "1.2.3/x.nrrd", "é/ü", "a b", "a..b", "..a", "x" * 255, "a/" * 500 + "a"])
def test_other_object_names_are_allowed(name: str) -> None:
    assert checked_object_name(name) == name


@pytest.mark.parametrize(
    "bucket",
    ["", "ab", "a" * 64, "Upper", "under_score", "-a1", "a1-", "a..b", "192.168.0.1", "a/b", "..", ".incoming"],
)
def test_bucket_names_that_s3_refuses_are_refused(store: ObjectStore, bucket: str) -> None:
    with pytest.raises(InvalidIdentifier):
        store.exists(bucket, "a")
    with pytest.raises(InvalidIdentifier):
        store.list(bucket)


@pytest.mark.parametrize("bucket", ["dcm2nrrd", "download-selected-files", "a.b", "a" * 63, "1st"])
def test_other_bucket_names_are_allowed(bucket: str) -> None:
    assert checked_bucket(bucket) == bucket


class TestFolder:
    def test_an_object_is_a_file_of_its_name(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"x")
        FolderObjects(tmp_path / "objects").put_file("results", "a/b.txt", tmp_path / "file")
        assert (tmp_path / "objects" / "results" / "a" / "b.txt").read_bytes() == b"x"
        assert list((tmp_path / "objects" / ".incoming").iterdir()) == []

    @pytest.mark.parametrize("name", ["link/secret", "file-link"])
    def test_no_link_leads_out(self, tmp_path: Path, name: str) -> None:
        store = FolderObjects(tmp_path / "objects")
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret").write_bytes(b"secret")
        (tmp_path / "file").write_bytes(b"x")
        store.put_file("results", "a", tmp_path / "file")
        (tmp_path / "objects" / "results" / "link").symlink_to(outside)
        (tmp_path / "objects" / "results" / "file-link").symlink_to(outside / "secret")
        assert [found.name for found in store.list("results")] == ["a"]
        assert list(store.list("results", "link/")) == []
        with pytest.raises(NotFound):
            store.open_read("results", name)
        if name == "link/secret":
            with pytest.raises(ConflictingContent):
                store.put_file("results", name, tmp_path / "file")
        else:  # replaces the link, not what it points to
            store.put_file("results", name, tmp_path / "file")
        assert (outside / "secret").read_bytes() == b"secret"
        assert [*outside.iterdir()] == [outside / "secret"]

    def test_an_object_and_names_below_it_cannot_both_be(self, tmp_path: Path) -> None:
        store = FolderObjects(tmp_path / "objects")
        (tmp_path / "file").write_bytes(b"x")
        store.put_file("results", "a/b", tmp_path / "file")
        for name in ("a", "a/b/c"):
            with pytest.raises(ConflictingContent):
                store.put_file("results", name, tmp_path / "file")
        assert [found.name for found in store.list("results")] == ["a/b"]

    def test_a_file_changed_by_hand_is_listed_with_its_new_digest(self, tmp_path: Path) -> None:
        store = FolderObjects(tmp_path / "objects")
        (tmp_path / "file").write_bytes(b"old")
        store.put_file("results", "a", tmp_path / "file")
        (tmp_path / "objects" / "results" / "a").write_bytes(b"new")
        (found,) = store.list("results")
        assert found.digest == f"sha256:{hashlib.sha256(b'new').hexdigest()}"
