"""The object store as a folder: an object is the file ``objects/<bucket>/<name>``.

Folders are opened one by one from the folder of the store, never through a symbolic link, so that no
name and no link in the store leads out of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from kaapana_assets.durable import make_folder
from kaapana_assets.errors import ConflictingContent, InvalidIdentifier, NotFound, StoreUnavailable
from kaapana_assets.stores.checks import StoreReport, free_where
from kaapana_assets.stores.objects.protocol import (
    StoredObject,
    checked_bucket,
    checked_expiry,
    checked_object_name,
    opened_source,
)

_ASIDE = ".incoming"  # no bucket can have this name
_DIGEST = "user.kaapana.sha256"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 20
_TRIES = 5  # a folder can be removed as empty while an object is put into it


class FolderObjects:
    """An object store whose objects are files in one folder.

    Unlike S3, it cannot hold both an object ``a`` and an object ``a/b``.

    Args:
        folder: the folder of the store; it is made with the first object.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    def put_file(self, bucket: str, name: str, path: Path | BinaryIO) -> StoredObject:
        """Store the content of a file, as ``ObjectStore.put_file`` says.

        Raises:
            NotFound: the file ``path`` cannot be read.
            ConflictingContent: ``name`` is a folder of other objects, or one of its folders is an object.
        """
        checked_bucket(bucket)
        *folders, last = checked_object_name(name).split("/")
        source = opened_source(bucket, name, path)
        with source, self._translated(bucket, name, writing=True):
            make_folder(self._folder / _ASIDE)
            with self._opened([_ASIDE]) as aside:
                part = secrets.token_hex(16)
                try:
                    size, digest = _write_durable(source, part, aside)
                    self._move(aside, part, [bucket, *folders], last)
                finally:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(part, dir_fd=aside)
        return StoredObject(bucket=bucket, name=name, size_bytes=size, digest=f"sha256:{digest}")

    def get_file(self, bucket: str, name: str, into: Path) -> StoredObject:
        """Write an object to a file, as ``ObjectStore.get_file`` says."""
        with self.open_read(bucket, name) as source:
            into.parent.mkdir(parents=True, exist_ok=True)
            aside = into.with_name(f".{into.name[:200]}.{secrets.token_hex(8)}")
            try:
                with aside.open("xb") as target:
                    size, digest = _copied(source, target)
                aside.replace(into)
            finally:
                aside.unlink(missing_ok=True)
        return StoredObject(bucket=bucket, name=name, size_bytes=size, digest=f"sha256:{digest}")

    def open_read(self, bucket: str, name: str) -> BinaryIO:
        """The content of an object, as ``ObjectStore.open_read`` says."""
        checked_bucket(bucket)
        *folders, last = checked_object_name(name).split("/")
        with self._translated(bucket, name), self._opened([bucket, *folders]) as parent:
            return _open_file(last, parent)

    def list(self, bucket: str, prefix: str = "") -> Iterator[StoredObject]:
        """The objects whose names begin with a prefix, as ``ObjectStore.list`` says."""
        checked_bucket(bucket)
        if not (self._folder / bucket).is_dir():
            raise NotFound(f"no bucket {bucket} in {self._folder}")
        return self._listed(bucket, prefix)

    def buckets(self) -> tuple[str, ...]:
        """The names of all buckets, in order."""
        try:
            with os.scandir(self._folder) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return ()
        except OSError as exc:
            raise StoreUnavailable(f"object store {self._folder}: {exc}") from exc
        return tuple(name for name in names if _is_bucket(name))

    def delete(self, bucket: str, name: str) -> None:
        """Remove an object, as ``ObjectStore.delete`` says; its bucket stays."""
        checked_bucket(bucket)
        *folders, last = checked_object_name(name).split("/")
        with self._translated(bucket, name):
            with self._opened([bucket, *folders]) as parent:
                _open_file(last, parent).close()
                os.unlink(last, dir_fd=parent)
                os.fsync(parent)
            while folders:
                empty = folders.pop()
                with self._opened([bucket, *folders]) as parent:
                    try:
                        os.rmdir(empty, dir_fd=parent)
                    except OSError:  # not empty, or already removed by another
                        break

    def exists(self, bucket: str, name: str) -> bool:
        """Whether the object exists."""
        try:
            self.open_read(bucket, name).close()
        except NotFound:
            return False
        return True

    def download_link(self, bucket: str, name: str, *, expires_s: int) -> str:
        """The ``file:`` address of an object, as ``ObjectStore.download_link`` says."""
        checked_expiry(expires_s)
        self.open_read(bucket, name).close()
        return (self._folder / bucket / name).as_uri()

    def check(self) -> StoreReport:
        """Check that the store works, as ``ObjectStore.check`` says."""
        free = free_where(self._folder)
        return StoreReport(product="folder", counts={"buckets": len(self.buckets())}, free_bytes=free)

    def _listed(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        root = self._folder / bucket
        top = root.joinpath(*prefix.split("/")[:-1])
        names = []
        for folder, _, files in os.walk(top if ".." not in prefix else root):  # does not follow links
            for file in files:
                name = Path(folder, file).relative_to(root).as_posix()
                if name.startswith(prefix) and _is_name(name):
                    names.append(name)
        for name in sorted(names, key=lambda name: name.encode()):
            try:
                with self.open_read(bucket, name) as content:
                    size, digest = os.fstat(content.fileno()).st_size, _digest_of(content)
            except NotFound:  # removed meanwhile, or a link
                continue
            yield StoredObject(bucket=bucket, name=name, size_bytes=size, digest=f"sha256:{digest}")

    def _move(self, aside: int, part: str, folders: Sequence[str], last: str) -> None:
        for tries_left in reversed(range(_TRIES)):
            try:
                with self._opened(folders, make=True) as parent:
                    os.rename(part, last, src_dir_fd=aside, dst_dir_fd=parent)
                    os.fsync(parent)
                    return
            except FileNotFoundError:
                if not tries_left:
                    raise

    @contextlib.contextmanager
    def _opened(self, folders: Sequence[str], *, make: bool = False) -> Iterator[int]:
        at = os.open(self._folder, _FOLDER & ~os.O_NOFOLLOW)  # the store itself may be a link
        try:
            for folder in folders:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(folder, dir_fd=at)
                        os.fsync(at)
                below = os.open(folder, _FOLDER, dir_fd=at)
                os.close(at)
                at = below
            yield at
        finally:
            os.close(at)

    @contextlib.contextmanager
    def _translated(self, bucket: str, name: str, *, writing: bool = False) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as exc:
            raise NotFound(f"no object {bucket}/{name} in {self._folder}") from exc
        except (IsADirectoryError, NotADirectoryError) as exc:
            if not writing:
                raise NotFound(f"no object {bucket}/{name} in {self._folder}") from exc
            raise ConflictingContent(
                f"object {bucket}/{name}: a part of its name is taken by another object, by names below it or by a link"
            ) from exc
        except OSError as exc:
            raise StoreUnavailable(f"object store {self._folder}, object {bucket}/{name}: {exc}") from exc


def _open_file(name: str, parent: int) -> BinaryIO:
    try:
        opened = os.open(name, _FILE, dir_fd=parent)
    except OSError as exc:
        # A link is no object, so it counts as missing.
        raise FileNotFoundError(exc.errno, exc.strerror, name) if _is_link(name, parent) else exc from exc
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise FileNotFoundError(name)
    return os.fdopen(opened, "rb")


def _is_link(name: str, parent: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _write_durable(source: BinaryIO, name: str, folder: int) -> tuple[int, str]:
    opened = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=folder)
    with os.fdopen(opened, "wb") as target:
        size, digest = _copied(source, target)
        target.flush()
        _remember(target.fileno(), digest)
        os.fsync(target.fileno())
    return size, digest


def _copied(source: BinaryIO, target: BinaryIO) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while piece := source.read(_PIECE):
        digest.update(piece)
        size += target.write(piece)
    return size, digest.hexdigest()


def _remember(file: int, digest: str) -> None:
    """Store the digest in an extended attribute, if possible, so that listing need not read the file."""
    status = os.fstat(file)
    with contextlib.suppress(OSError, AttributeError):
        os.setxattr(file, _DIGEST, json.dumps([status.st_size, status.st_mtime_ns, digest]).encode())


def _digest_of(content: BinaryIO) -> str:
    status = os.fstat(content.fileno())
    with contextlib.suppress(OSError, AttributeError, ValueError):
        size, changed_ns, digest = json.loads(os.getxattr(content.fileno(), _DIGEST))
        if (size, changed_ns) == (status.st_size, status.st_mtime_ns):
            return str(digest)
    found = hashlib.sha256()
    while piece := content.read(_PIECE):
        found.update(piece)
    return found.hexdigest()


def _is_bucket(name: str) -> bool:
    try:
        checked_bucket(name)
    except InvalidIdentifier:
        return False
    return True


def _is_name(name: str) -> bool:
    try:
        checked_object_name(name)
    except InvalidIdentifier:
        return False
    return True
