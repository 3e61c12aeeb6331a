"""Clears data outside of the archive: the spool, the quarantine, and copies left by killed processes."""

from __future__ import annotations

import errno
import mmap
import shutil
from collections.abc import Iterator, Set
from pathlib import Path

from kaapana_assets.clocks import is_untouched
from kaapana_assets.dicom.headers import read_identity
from kaapana_assets.dicom.limits import ReadingLimits
from kaapana_assets.durable import sync_folder
from kaapana_assets.errors import InputError, StoreUnavailable
from kaapana_assets.forgetting.copies import uid_pattern
from kaapana_assets.forgetting.location import Location
from kaapana_assets.home_paths import HomePaths
from kaapana_assets.stores.files.durable import remove_if_empty
from kaapana_assets.stores.forgotten import Forgetting

# Temporary files that are renamed when they are complete, and the files that the demo sends.
_ASIDE = (
    "incoming/.tmp/*",
    "quarantine/.tmp/*",
    "archive/.tmp/*",
    "archives/*/.tmp/**/*",
    "cohorts/.*",
    "forgotten/.pending/.*",
    "workflows/data/.runs/.*",
    "workflows/data/.runs/.records/*/.*",
    "workflows/data/.runs/.records/.*/**/*",
    "demo/outgoing/**/*",
)
_RESULTS_ASIDE = "objects/.incoming"
_LEFT_BEHIND_S = 3600.0
_TRIES = 100


def spool_location(home: Path, forgetting: Forgetting) -> Location:
    """The files of the series in the spool, and the notes about aborted associations."""
    incoming = HomePaths(home).incoming
    folders = [incoming / uid for uid in forgetting.series]
    notes = [incoming / ".abnormal-ends" / uid for uid in forgetting.series]

    def clear() -> list[str]:
        for folder in folders:
            _remove(folder)
        for note in notes:
            note.unlink(missing_ok=True)
        return []

    return Location(
        name="spool", unit="files", count=lambda: sum(len(list(folder.glob("*"))) for folder in folders), clear=clear
    )


def quarantine_location(home: Path, limits: ReadingLimits, forgetting: Forgetting) -> Location:
    """The quarantined files of the series, in any folder of the quarantine, with their notes."""
    series = set(forgetting.series)

    def found() -> list[Path]:
        return [path for path in quarantined_files(home) if path.parent.name in series or _is_of(path, series, limits)]

    def clear() -> list[str]:
        for path in found():
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.json").unlink(missing_ok=True)
            sync_folder(path.parent)
            remove_if_empty(path.parent)
        for uid in series:
            _remove(HomePaths(home).quarantine / uid)
        return []

    return Location(name="quarantine", unit="files", count=lambda: len(found()), clear=clear)


def scratch_location(home: Path, limits: ReadingLimits, forgetting: Forgetting) -> Location:
    """Temporary copies that killed processes did not remove.

    Results on their way into the embedded object store do not name their series: all that were not written to for
    an hour are removed.
    """
    series = set(forgetting.series)
    record = HomePaths(home).index_rebuild

    def found() -> list[Path]:
        folders = [path for path in HomePaths(home).scratch.glob("*") if path.is_dir()]
        folders = [folder for folder in folders if any(_is_of(path, series, limits) for path in _files(folder))]
        files = [path for path in aside_files(home) if _is_of(path, series, limits)]
        results = [path for path in _files(home / _RESULTS_ASIDE) if _is_left(path) or _is_of(path, series, limits)]
        return [*folders, *files, *results]

    def clear() -> list[str]:
        for path in found():
            if path.is_dir():
                _remove(path)
            else:
                path.unlink(missing_ok=True)
                sync_folder(path.parent)
        if record.exists():  # the series that a rebuild of the index has finished
            lines = record.read_text().splitlines()
            record.write_text("".join(f"{line}\n" for line in lines if line not in series))
        return []

    return Location(name="scratch", unit="copies", count=lambda: len(found()), clear=clear)


def quarantined_files(home: Path) -> Iterator[Path]:
    """All quarantined files, without their notes."""
    for path in _files(HomePaths(home).quarantine):
        is_note = path.suffix == ".json" and path.with_suffix("").is_file()
        if not is_note and not path.parent.name.startswith("."):
            yield path


def aside_files(home: Path) -> Iterator[Path]:
    """Temporary files that are not renamed yet, or were left by killed processes."""
    for pattern in _ASIDE:
        yield from (path for path in sorted(home.glob(pattern)) if path.is_file() and not path.is_symlink())


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def _is_of(path: Path, series: Set[str], limits: ReadingLimits) -> bool:
    """Whether a file belongs to one of the series; an unreadable file does if it contains the UID of one."""
    try:
        return read_identity(path, limits=limits).series_instance_uid in series
    except InputError:
        pass
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return uid_pattern(sorted(series)).search(text) is not None
    except (FileNotFoundError, ValueError):  # the file is gone or empty
        return False


def _is_left(path: Path) -> bool:
    try:
        return is_untouched(path, for_s=_LEFT_BEHIND_S)
    except FileNotFoundError:
        return False


def _remove(folder: Path) -> None:
    for left in reversed(range(_TRIES)):
        try:
            shutil.rmtree(folder)
            sync_folder(folder.parent)
        except FileNotFoundError:
            # Of one file in it, when somebody else was faster.
            if not folder.exists():
                return
            continue
        except OSError as exc:
            if exc.errno == errno.ENOTEMPTY and left:  # a sender goes on sending
                continue
            raise StoreUnavailable(f"{folder} cannot be removed: {exc.strerror}: {exc.filename}") from exc
        return
    raise StoreUnavailable(f"{folder} cannot be removed: others work in it all the time")
