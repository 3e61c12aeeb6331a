"""The object store on MinIO or any other S3 server.

The SHA-256 of an object is kept in its user metadata. It is computed for objects that others put without it.
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, TypeVar, cast

from minio import Minio
from minio.error import InvalidResponseError, S3Error

from kaapana_assets.errors import ConfigurationError, InvalidIdentifier, NotFound, StoreUnavailable
from kaapana_assets.stores.checks import StoreReport
from kaapana_assets.stores.objects.checksums import Checksums, HashingReader
from kaapana_assets.stores.objects.protocol import (
    StoredObject,
    checked_bucket,
    checked_expiry,
    checked_object_name,
    opened_source,
)
from kaapana_assets.stores.objects.s3_connection import LIBRARY_ERRORS, S3Connection, translated

if TYPE_CHECKING:
    from collections.abc import Callable

    from minio.datatypes import Object

_Result = TypeVar("_Result")
_SHA256 = "sha256"
_METADATA_PREFIX = "x-amz-meta-"
_PIECE = 1 << 20
_PUTS = 3  # transfers of one file, each with the connection's own attempts


class MinioObjects:
    """An object store on an S3 server.

    Args:
        connection: address and credentials of the server.
        part_bytes: larger files are sent in parts of this size, three at once; at least 5 MiB.
    """

    def __init__(self, connection: S3Connection, *, part_bytes: int = 16 << 20) -> None:
        self._connection = connection
        self._part_bytes = part_bytes
        self._client: Minio = connection.open()

    def put_file(self, bucket: str, name: str, path: Path | BinaryIO) -> StoredObject:
        """Store the content of a file, as ``ObjectStore.put_file`` says.

        The bucket is made if it is missing. The entity tag that the server returns is compared with the
        file's. If it differs, as with encryption on the server, the object is read back and compared.

        Raises:
            NotFound: the file ``path`` cannot be read.
            ConflictingContent: the server cannot hold this object beside another (``a`` and ``a/b``).
            StoreUnavailable: also if the file changes while it is read.
        """
        checked_bucket(bucket)
        checked_object_name(name)
        source = opened_source(bucket, name, path)
        with source:
            for _ in range(_PUTS):
                sent = self._translated(bucket, name, lambda: _readable(lambda: self._sent(bucket, name, source)))
                if sent is not None:
                    return _stored(bucket, name, sent.size_bytes, sent.sha256)
        raise StoreUnavailable(
            f"object {bucket}/{name} is not whole on {self._where} after {_PUTS} tries: {path} changes while it is "
            "read, or the connection damages it"
        )

    def get_file(self, bucket: str, name: str, into: Path) -> StoredObject:
        """Write an object to a file, as ``ObjectStore.get_file`` says, and check its digest."""
        checked_bucket(bucket)
        checked_object_name(name)
        into.parent.mkdir(parents=True, exist_ok=True)
        aside = into.with_name(f".{into.name[:200]}.{secrets.token_hex(8)}")
        try:
            with aside.open("x+b") as target:
                stored = self._fetched(bucket, name, target)
            aside.replace(into)
        finally:
            aside.unlink(missing_ok=True)
        return stored

    def open_read(self, bucket: str, name: str) -> BinaryIO:
        """The content of an object as a temporary file without a name; see ``ObjectStore.open_read``."""
        checked_bucket(bucket)
        checked_object_name(name)
        content = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        try:
            self._fetched(bucket, name, content)
            content.seek(0)
        except BaseException:
            content.close()
            raise
        return cast("BinaryIO", content)

    def list(self, bucket: str, prefix: str = "") -> Iterator[StoredObject]:
        """The objects whose names begin with a prefix, as ``ObjectStore.list`` says."""
        checked_bucket(bucket)
        if not self._translated(bucket, "", lambda: self._client.bucket_exists(bucket)):
            raise NotFound(f"no bucket {bucket} on {self._where}")
        if {".", ".."} & {*prefix.split("/")[:-1]}:
            return iter(())  # no name has such a prefix, and the server would refuse it
        return self._listed(bucket, prefix)

    def buckets(self) -> tuple[str, ...]:
        """The names of all buckets, in order."""
        found = self._translated("", "", lambda: [each.name for each in self._client.list_buckets()])
        return tuple(sorted(name for name in found if _is_allowed(checked_bucket, name)))

    def delete(self, bucket: str, name: str) -> None:
        """Remove an object, as ``ObjectStore.delete`` says; its bucket stays."""
        checked_bucket(bucket)
        checked_object_name(name)

        def removed() -> None:
            self._stat(bucket, name)  # S3 does not say whether there was one
            self._client.remove_object(bucket, name)

        self._translated(bucket, name, removed)

    def exists(self, bucket: str, name: str) -> bool:
        """Whether the object exists."""
        checked_bucket(bucket)
        checked_object_name(name)
        try:
            self._translated(bucket, name, lambda: self._stat(bucket, name))
        except NotFound:
            return False
        return True

    def download_link(self, bucket: str, name: str, *, expires_s: int) -> str:
        """A presigned address, as ``ObjectStore.download_link`` says."""
        checked_expiry(expires_s)
        if not self.exists(bucket, name):
            raise NotFound(f"no object {bucket}/{name} on {self._where}")
        expires = timedelta(seconds=expires_s)
        return self._translated(bucket, name, lambda: self._client.presigned_get_object(bucket, name, expires))

    def check(self) -> StoreReport:
        """Check that the store works, as ``ObjectStore.check`` says; S3 servers do not report a version."""
        client, pool = self._connection.open_naming()

        def buckets() -> dict[str, int]:
            try:
                return {"buckets": len(client.list_buckets())}
            except S3Error as exc:
                if exc.code != "AccessDenied":
                    raise
                return {}  # the credentials are right, but may not list the buckets

        try:
            counts = self._translated("", "", buckets)
        except StoreUnavailable as exc:
            cause = exc.__cause__
            if isinstance(cause, ET.ParseError) or (isinstance(cause, InvalidResponseError) and cause._code < 500):
                raise ConfigurationError(
                    f"KAAPANA_S3_ENDPOINT={self._connection.endpoint}: what answers there does not speak S3"
                ) from exc
            raise
        finally:
            pool.clear()
        return StoreReport(product=pool.server or "S3", counts=counts)

    @property
    def _where(self) -> str:
        return f"the object store {self._connection.endpoint}"

    def _sent(self, bucket: str, name: str, source: BinaryIO) -> Checksums | None:
        """Upload a file once. Returns its checksums, or None if the server has other content afterwards."""
        expected = Checksums.of(source, part_bytes=self._part_bytes)
        source.seek(0)
        reader = HashingReader(source)
        if not self._client.bucket_exists(bucket):
            with _unless({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}):
                self._client.make_bucket(bucket)
        with _unless({"NoSuchUpload"}):  # a response was lost and the request repeated: compare below
            self._client.put_object(
                bucket, name, reader, expected.size_bytes,  # type: ignore[arg-type]
                part_size=self._part_bytes, metadata={_SHA256: expected.sha256},
            )  # fmt: skip
        found = self._stat(bucket, name)
        if reader.sha256 != expected.sha256 or found.size != expected.size_bytes:
            return None
        if (found.etag or "").strip('"') == expected.etag:
            return expected
        # It is the object of another writer, or its entity tag is that of encrypted bytes.
        size, digest = self._copied(bucket, name, None)
        if (size, digest) == (expected.size_bytes, expected.sha256) or _recorded(found) == digest:
            return expected
        return None

    def _fetched(self, bucket: str, name: str, target: IO[bytes]) -> StoredObject:
        for _ in range(_PUTS):
            found = self._translated(bucket, name, lambda: self._stat(bucket, name))
            target.seek(0)
            target.truncate()
            size, digest = self._translated(bucket, name, lambda: self._copied(bucket, name, target))
            if size == found.size and _recorded(found) in (None, digest):
                return _stored(bucket, name, size, digest)
        raise StoreUnavailable(
            f"object {bucket}/{name} does not arrive whole from {self._where}: its content does not have the digest "
            "that it was stored with; store it again"
        )

    def _copied(self, bucket: str, name: str, target: IO[bytes] | None) -> tuple[int, str]:
        answer = self._client.get_object(bucket, name)
        try:
            reader = HashingReader(answer)
            while piece := reader.read(_PIECE):
                if target is not None:
                    target.write(piece)
            return reader.size_bytes, reader.sha256
        finally:
            answer.close()
            answer.release_conn()

    def _stat(self, bucket: str, name: str) -> Object:
        found = self._client.stat_object(bucket, name)
        if not found.etag:
            raise ValueError("an answer that was cut: every object has an entity tag")
        return found

    def _listed(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        found = self._client.list_objects(bucket, prefix or None, recursive=True, include_user_meta=True)
        while (each := self._translated(bucket, prefix, lambda: next(found, None))) is not None:
            name = each.object_name or ""
            if not _is_allowed(checked_object_name, name):
                continue
            try:
                size, digest = each.size, _recorded(each)
                if digest is None:
                    digest = _recorded(self._translated(bucket, name, lambda: self._stat(bucket, name)))  # noqa: B023
                if size is None or digest is None:
                    size, digest = self._translated(
                        bucket, name, lambda: self._copied(bucket, name, None)  # noqa: B023
                    )  # fmt: skip
            except NotFound:  # removed meanwhile
                continue
            yield _stored(bucket, name, size, digest)

    def _translated(self, bucket: str, name: str, call: Callable[[], _Result]) -> _Result:
        """Return the result of a call; errors of the library become errors of this package here."""
        try:
            return call()
        except LIBRARY_ERRORS as exc:
            what = f"object {bucket}/{name}" if bucket else "the list of buckets"
            raise translated(exc, what=what, where=self._where) from exc


def _readable(call: Callable[[], _Result]) -> _Result:
    """Return the result of a repeatable call; it is repeated if a response was cut off and is no valid XML."""
    for _ in range(_PUTS - 1):
        with contextlib.suppress(ET.ParseError):
            return call()
    return call()


@contextlib.contextmanager
def _unless(codes: set[str]) -> Iterator[None]:
    try:
        yield
    except S3Error as exc:
        if exc.code not in codes:
            raise


def _stored(bucket: str, name: str, size: int, sha256: str) -> StoredObject:
    return StoredObject(bucket=bucket, name=name, size_bytes=size, digest=f"sha256:{sha256}")


def _recorded(found: Object) -> str | None:
    """The digest that an object was stored with; in listings, MinIO and other servers name its key differently."""
    for key, value in (found.metadata or {}).items():
        if key.lower().removeprefix(_METADATA_PREFIX) == _SHA256 and len(value) == 64:
            return str(value)
    return None


def _is_allowed(check: Callable[[str], str], name: str) -> bool:
    try:
        check(name)
    except InvalidIdentifier:
        return False
    return True
