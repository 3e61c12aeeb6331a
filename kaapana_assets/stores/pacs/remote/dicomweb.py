"""Sends the requests of a PACS to a DICOMweb archive: QIDO, WADO and STOW. It keeps no records.

References: PS3.18 10.4 (retrieve), 10.5 (store), 10.6 (search).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import requests

from kaapana_assets.dicom.identifiers import checked_uid
from kaapana_assets.errors import ConfigurationError, InvalidIdentifier, NotFound
from kaapana_assets.stores.pacs.remote.connection import ArchiveConnection
from kaapana_assets.stores.pacs.remote.multipart import MultipartFiles, boundary_of, write_parts

_Result = TypeVar("_Result")
_AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_PAGE = 500
_PIECE = 1 << 20
_STUDY, _SERIES, _SOP = "0020000D", "0020000E", "00080018"
# Client errors about the credentials, the path or a temporary state. No archive answers a plain search with another.
_SAID_BY_ARCHIVES = frozenset({401, 403, 404, 408, 410, 425, 429})
_UNKNOWN_WAY = frozenset({400, 404, 405, 406, 415, 501})
_INSTANCE_COUNT = "00201209"
_FAILED, _REFERENCED = "00081198", "00081199"
_REFERENCED_SOP, _FAILURE_REASON = "00081155", "00081197"


@dataclass(frozen=True)
class ArchivedSeries:
    """A series in the response to a search.

    Attributes:
        instance_count: None if the archive does not report it.
    """

    study_instance_uid: str
    series_instance_uid: str
    instance_count: int | None


@dataclass(frozen=True)
class StowAnswer:
    """The response of the archive to one STOW request, by SOPInstanceUID.

    Attributes:
        stored: the instances that it stored, with or without a warning.
        failed: the instances that it refused, with their Failure Reason.
        is_complete: whether the response could be read and lists instances. If so, an instance that it does not
            name was not stored; if not, a search has to find out what was stored.
    """

    stored: frozenset[str]
    failed: Mapping[str, int]
    is_complete: bool


class DicomwebArchive:
    """One archive, for any number of threads.

    Args:
        connection: address and credentials of the archive.
    """

    def __init__(self, connection: ArchiveConnection) -> None:
        self.connection = connection
        self._session = connection.session()
        self._client = connection.client(self._session)
        self._slots = threading.BoundedSemaphore(connection.parallel)

    @property
    def url(self) -> str:
        """The root of its services."""
        return self.connection.url

    def series(self, series_instance_uid: str) -> list[ArchivedSeries]:
        """The search results for this UID: none, one, or several if the archive has the series in several studies."""
        found = self._tried(
            f"series {series_instance_uid}",
            lambda: [
                _archived(each)
                for each in self._client.search_for_series(
                    search_filters={"SeriesInstanceUID": series_instance_uid},
                    fields=["NumberOfSeriesRelatedInstances"],
                )
            ],
        )
        # An archive that does not know the filter returns all series.
        return [each for each in found if each.series_instance_uid == series_instance_uid]

    def all_series(self) -> Iterator[ArchivedSeries]:
        """Yield every series, in no particular order.

        Raises:
            ConfigurationError: the archive returns its first page again and again, so there may be more series.
        """
        seen: set[ArchivedSeries] = set()

        def page() -> list[ArchivedSeries]:
            answer = self._client.search_for_series(
                fields=["NumberOfSeriesRelatedInstances"], limit=_PAGE, offset=len(seen)
            )
            return [_archived(each) for each in answer]

        while found := self._tried("the list of series", page):  # a page may be shorter than requested
            new = set(found) - seen
            if not new:
                if len(found) < _PAGE:
                    return
                raise ConfigurationError(
                    f"the archive {self.url} gives the same {len(found)} series for each page: let it answer QIDO "
                    "requests with limit and offset"
                )
            seen |= new
            yield from new

    def instance_uids(self, series: ArchivedSeries) -> list[str]:
        """The SOPInstanceUIDs of a series, sorted; an archive may need milliseconds for each."""
        found: dict[str, None] = {}

        def page() -> list[str]:
            answer = self._client.search_for_instances(
                series.study_instance_uid, series.series_instance_uid, limit=_PAGE, offset=len(found)
            )
            return [_uid(each, _SOP) for each in answer]

        what = f"instances of series {series.series_instance_uid}"
        while new := [uid for uid in self._tried(what, page) if uid not in found]:
            found.update(dict.fromkeys(new))
        return sorted(found)

    def store(self, files: Sequence[Path]) -> StowAnswer:
        """Store files with one request; they are read while they are sent, and are not changed."""

        def post() -> StowAnswer:
            body = MultipartFiles(files)
            headers = {"Content-Type": body.content_type, "Accept": "application/dicom+json"}
            response = self._session.post(
                f"{self.url}/studies", data=body, headers=headers, timeout=self.connection.timeouts
            )
            if response.status_code not in (400, 409):  # these may report the outcome of each instance, too
                response.raise_for_status()
            answer = _stow_answer(response)
            if not response.ok and not answer.is_complete:
                response.raise_for_status()
            return answer

        return self._tried(f"{len(files)} instances that are to be stored", post)

    def retrieve(self, series: ArchivedSeries, into: Path, *, sop_instance_uid: str = "") -> list[Path]:
        """Stream a series, or one instance of it, into a folder, in the transfer syntax that it is stored in.

        The names of the files have no meaning. The folder is emptied before each attempt.

        Raises:
            NotFound: the archive has no such series or instance.
        """
        address = f"{self.url}/studies/{series.study_instance_uid}/series/{series.series_instance_uid}"
        what = f"series {series.series_instance_uid}"
        if sop_instance_uid:
            address, what = f"{address}/instances/{sop_instance_uid}", f"instance {sop_instance_uid} of {what}"

        def get() -> list[Path]:
            for left in into.iterdir():
                left.unlink()
            headers = {"Accept": _AS_STORED, "Accept-Encoding": "identity"}
            with self._session.get(address, headers=headers, timeout=self.connection.timeouts, stream=True) as response:
                response.raise_for_status()
                if response.status_code == 204:
                    return []
                return _written(response, into)

        files = self._tried(what, get)
        if not files:
            raise NotFound(f"the archive {self.url} has no {what}")
        return files

    def delete(self, series: ArchivedSeries) -> bool:
        """Request the removal of a series in the ways that archives support. Returns whether one was accepted.

        The standard defines no such request. The first way is DELETE on the address of the series (Google, Azure,
        dcm4chee with the right rules), the second is Orthanc's own API, which is beside its DICOMweb services.

        Raises:
            StoreUnavailable: the archive does not answer.
        """
        for way in (self._delete_by_address, self._delete_from_orthanc):
            try:
                if self._tried(f"series {series.series_instance_uid}", partial(way, series)):
                    return True
            except (ConfigurationError, NotFound):
                continue  # not allowed, or this way is unknown there; the caller reports what remains
        return False

    def _delete_by_address(self, series: ArchivedSeries) -> bool:
        address = f"{self.url}/studies/{series.study_instance_uid}/series/{series.series_instance_uid}"
        response = self._session.delete(address, timeout=self.connection.timeouts)
        if response.status_code in _UNKNOWN_WAY:
            return False
        response.raise_for_status()
        return True

    def _delete_from_orthanc(self, series: ArchivedSeries) -> bool:
        root = self.url.rpartition("/")[0]
        found = self._session.post(
            f"{root}/tools/lookup", data=series.series_instance_uid, timeout=self.connection.timeouts
        )
        if found.status_code in _UNKNOWN_WAY:
            return False
        found.raise_for_status()
        for each in found.json():
            if each["Type"] == "Series":
                gone = self._session.delete(f"{root}{each['Path']}", timeout=self.connection.timeouts)
                if gone.status_code != 404:
                    gone.raise_for_status()
        return True

    def check(self) -> str:
        """Check that the archive answers a search. Returns its header ``Server``, which is often empty.

        Raises:
            ConfigurationError: the server is no archive.
        """

        def search() -> str:
            response = self._session.get(
                f"{self.url}/series",
                params={"limit": 1},
                headers={"Accept": "application/dicom+json"},
                timeout=self.connection.timeouts,
            )
            strange = 400 <= response.status_code < 500 and response.status_code not in _SAID_BY_ARCHIVES
            if not strange:
                response.raise_for_status()
            if strange or (response.status_code != 204 and not _is_list(response)):
                raise ConfigurationError(f"KAAPANA_DICOMWEB_URL={self.url}: what answers there is no DICOMweb archive")
            return str(response.headers.get("Server", ""))

        try:
            return self._tried("a search for one series", search)
        except NotFound as exc:
            raise ConfigurationError(f"KAAPANA_DICOMWEB_URL={self.url}: there are no DICOMweb services") from exc

    def _tried(self, what: str, call: Callable[[], _Result]) -> _Result:
        def with_slot() -> _Result:
            with self._slots:
                return call()

        return self.connection.tried(what, with_slot)


def _written(response: requests.Response, into: Path) -> list[Path]:
    boundary = boundary_of(response.headers.get("Content-Type", ""))
    chunks = response.iter_content(_PIECE)
    if boundary is not None:
        return write_parts(chunks, boundary, into)
    path = into / "part-000000"  # a single instance need not be multipart
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
    return [path]


def _is_list(response: requests.Response) -> bool:
    try:
        return isinstance(response.json(), list)
    except ValueError:
        return False


def _stow_answer(response: requests.Response) -> StowAnswer:
    try:
        said = json.loads(response.content)
        stored = [_uid(each, _REFERENCED_SOP) for each in _items(said, _REFERENCED)]
        refused = _items(said, _FAILED)
        failed = {_uid(each, _REFERENCED_SOP): int(_value(each, _FAILURE_REASON) or 0) for each in refused}
    except (ValueError, LookupError, TypeError, AttributeError):
        return StowAnswer(frozenset(), {}, is_complete=False)
    return StowAnswer(frozenset(stored) - failed.keys(), failed, is_complete=_FAILED in said or _REFERENCED in said)


def _items(answer: Mapping[str, Any], tag: str) -> list[Mapping[str, Any]]:
    return list(answer.get(tag, {}).get("Value", []))


def _value(answer: Mapping[str, Any], tag: str) -> Any:  # noqa: ANN401 - JSON
    values = answer.get(tag, {}).get("Value")
    return values[0] if values else None


def _uid(answer: Mapping[str, Any], tag: str) -> str:
    try:
        return checked_uid(str(answer[tag]["Value"][0]), keyword=tag)
    except InvalidIdentifier as exc:
        raise ValueError(f"{tag} is no UID") from exc


def _archived(answer: Mapping[str, Any]) -> ArchivedSeries:
    count = _value(answer, _INSTANCE_COUNT)
    return ArchivedSeries(_uid(answer, _STUDY), _uid(answer, _SERIES), None if count is None else int(count))
