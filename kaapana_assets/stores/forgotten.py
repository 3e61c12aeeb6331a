"""The series that are being forgotten, and records of past forgettings: who requested them, when, and how much.

    <home>/forgotten/.pending/<id>.json   a forgetting that has begun and not ended; names its series
    <home>/forgotten/<id>.json            the record of a forgetting that has ended
    <home>/forgotten/.salt                the salt of the marks in records, see ``Marks``
    <home>/forgotten/.lock                locked exclusively by a forgetting, shared by backups

Records hold no patient data, and name a series only if it could not be removed. A series that arrives again is
treated as new, so its name is not needed. With its UID and this home, its mark still tells whether it was forgotten.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

from kaapana_assets.dicom.identifiers import is_name, is_uid
from kaapana_assets.durable import make_folder, sync_folder, write_file
from kaapana_assets.errors import StoreUnavailable, TemporaryError
from kaapana_assets.home_paths import HomePaths
from kaapana_assets.locks import is_locked, open_lock

Kind = Literal["series", "study", "patient"]
_MARK_CHARACTERS = 32
_MODE = 0o600
_LOCK = ".lock"


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """One forgetting, from its beginning to its end.

    Attributes:
        id: the time of its beginning and a random part; ids sort by time.
        kind: whether a series, a study or a patient was to be forgotten, but not which one.
        asked_by: the user of the operating system who requested it.
        asked: time of the request, ISO 8601.
        series: SeriesInstanceUIDs.
        cohorts: names of the cohorts that contained one of them.
        pooled: workflow, operator and cohort of each pooled output that was made from one of them and others.
        done: how much was removed, by cleared location (such as ``index``).
        remains: what could not be removed, and what to do about it.
    """

    id: str
    kind: Kind
    asked_by: str
    asked: str
    series: tuple[str, ...]
    cohorts: tuple[str, ...] = ()
    pooled: tuple[tuple[str, str, str], ...] = ()
    done: dict[str, int] = field(default_factory=dict)
    remains: tuple[str, ...] = ()

    def with_done(self, place: str, count: int, remains: tuple[str, ...]) -> Forgetting:
        """A copy in which one more location is cleared."""
        return replace(self, done={**self.done, place: count}, remains=(*self.remains, *remains))


class Marks:
    """Makes marks of series that only this home can make: HMAC-SHA256 of the UID, with a random salt as key.

    Args:
        home: the folder of all data; the salt is made there when it is first needed.

    Raises:
        StoreUnavailable: the salt can be neither read nor made.
    """

    def __init__(self, home: Path) -> None:
        path = HomePaths(home).forgotten / ".salt"
        try:
            with suppress(FileExistsError):
                write_file(path, secrets.token_hex(32), mode=_MODE, replace=False)
            self._salt = path.read_bytes()
        except OSError as exc:
            raise StoreUnavailable(f"{path} cannot be written or read: {exc.strerror}") from exc

    def of(self, series_instance_uid: str) -> str:
        """The mark of a series: 32 hexadecimal digits."""
        return hmac.new(self._salt, series_instance_uid.encode(), hashlib.sha256).hexdigest()[:_MARK_CHARACTERS]


class ForgottenRecords:
    """The pending forgettings of one home and the records of those that have ended.

    Every method raises StoreUnavailable if the folder cannot be read or written.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._folder = HomePaths(home).forgotten
        self._pending = self._folder / ".pending"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock exclusively, so that no other forgetting runs; waits for others to end.

        Raises:
            TemporaryError: a backup is being taken.
        """
        with self._lock() as lock:
            if not _takes(lock, fcntl.LOCK_EX):
                if _takes(lock, fcntl.LOCK_SH):
                    raise TemporaryError(
                        f"a backup of {self._home} is being taken, in which nothing may be missing: wait for its end"
                    )
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def none(self) -> Iterator[None]:
        """Hold the lock shared, so that no forgetting runs while the home is copied; waits for one to end."""
        with self._lock() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    def is_forgetting(self) -> bool:
        """Whether a forgetting runs now."""
        with _translated(self._folder):
            return is_locked(self._folder / _LOCK)

    @contextmanager
    def _lock(self) -> Iterator[BinaryIO]:
        with _translated(self._folder):
            make_folder(self._pending)
            lock = open_lock(self._folder / _LOCK)
        with lock:
            yield lock

    def begin(self, forgetting: Forgetting) -> None:
        """Write a pending forgetting, or its progress; durable on return."""
        with _translated(self._folder):
            write_file(self._pending / f"{forgetting.id}.json", json.dumps(asdict(forgetting), indent=1), mode=_MODE)

    def drop(self, forgetting: Forgetting) -> None:
        """Remove a pending forgetting."""
        with _translated(self._folder):
            (self._pending / f"{forgetting.id}.json").unlink(missing_ok=True)
            sync_folder(self._pending)

    def end(self, forgetting: Forgetting) -> Path:
        """Write the record of a forgetting that has ended, and remove the pending one. Returns the record's path."""
        path = self._folder / f"{forgetting.id}.json"
        marks = Marks(self._home)
        record: dict[str, Any] = {
            "kind": forgetting.kind,
            "asked_by": forgetting.asked_by,
            "asked": forgetting.asked,
            "series": len(forgetting.series),
            "marks": sorted(marks.of(uid) for uid in forgetting.series),
            "cohorts": list(forgetting.cohorts),
            "pooled_outputs": [list(each) for each in forgetting.pooled],
            "removed": dict(forgetting.done),
            # These messages have to name the series that remain.
            "remains": list(forgetting.remains),
        }
        with _translated(self._folder):
            write_file(path, json.dumps(record, indent=1), mode=_MODE)
        self.drop(forgetting)
        return path

    def pending(self) -> list[Forgetting]:
        """The forgettings that have begun and not ended, the oldest first."""
        with _translated(self._folder):
            found = [_read(path) for path in sorted(self._pending.glob("*.json"))]
        return [each for each in found if each is not None]


def series_being_forgotten(home: Path) -> frozenset[str]:
    """The series of all forgettings that have not ended; no work may begin on them."""
    return frozenset(uid for each in ForgottenRecords(home).pending() for uid in each.series)


def _takes(lock: BinaryIO, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: Path) -> Forgetting | None:
    """Read a pending forgetting; None if it ended at this moment."""
    try:
        values = json.loads(path.read_bytes())
        listed = {name: tuple(values[name]) for name in ("series", "cohorts", "remains")}
        found = Forgetting(**{**values, **listed, "pooled": tuple(tuple(each) for each in values["pooled"])})
        # Folders of these names are removed, so a file that somebody else wrote must not name a path elsewhere.
        names = (*found.cohorts, *(name for each in found.pooled for name in each), found.id)
        if not (all(map(is_uid, found.series)) and all(map(is_name, names))):
            raise ValueError("names that are none")
        return found
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as exc:
        raise StoreUnavailable(f"{path} is damaged: delete it, and ask again for what is to be forgotten") from exc


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StoreUnavailable(f"{folder} cannot be read or written: {exc.strerror or exc}") from exc
