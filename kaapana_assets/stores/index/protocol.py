"""The metadata index: one searchable document per series, whatever engine holds it.

Documents are made by ``dicom.documents``; what queries mean is said in ``stores.query.tree``. An
implementation takes documents and queries as they are and raises only errors of this package.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from kaapana_assets.stores.checks import StoreReport
from kaapana_assets.stores.query.tree import Query

if TYPE_CHECKING:
    from kaapana_assets.dicom.attributes import Document

DateInterval: TypeAlias = Literal["year", "month", "day"]


@dataclass(frozen=True)
class SortKey:
    """Order by a field: of several values the lowest, or the highest if descending; absent comes last."""

    field: str
    descending: bool = False


@dataclass(frozen=True)
class Page:
    """Some of the documents that match.

    Attributes:
        total: how many match in all.
        next_cursor: give it as ``after`` for the next page; ``None`` at the end.
    """

    documents: tuple[Document, ...]
    total: int
    next_cursor: str | None


@dataclass(frozen=True)
class TermsFacet:
    """The most frequent values of a field, the most frequent first, equals by value."""

    field: str
    size: int = 10


@dataclass(frozen=True)
class HistogramFacet:
    """Numbers of a field in steps of ``interval``; a bucket's key is its lower bound."""

    field: str
    interval: float


@dataclass(frozen=True)
class DateHistogramFacet:
    """Dates of a field by year, month or day; keys are ``2020``, ``2020-06``, ``2020-06-30``."""

    field: str
    interval: DateInterval = "month"


Facet: TypeAlias = TermsFacet | HistogramFacet | DateHistogramFacet


@dataclass(frozen=True)
class Bucket:
    """A value, or the lower bound of a step, and how many series have it."""

    key: str | int | float
    count: int


class MetadataIndex(Protocol):
    """Documents by SeriesInstanceUID, searchable by every field.

    Every method raises StoreUnavailable if the engine does not answer.
    """

    def put(self, documents: Iterable[Document]) -> None:
        """Add documents, each in place of one with the same SeriesInstanceUID; durable on return.

        Raises:
            InvalidIdentifier: a document without valid SeriesInstanceUID; those before it may be in.
        """

    def get(self, series_instance_uid: str) -> Document:
        """The document of a series.

        Raises:
            NotFound: no such series.
        """

    def delete(self, series_instance_uids: Iterable[str]) -> None:
        """Remove documents; those that are not there are passed over."""

    def forget(self, series_instance_uids: Iterable[str]) -> None:
        """Remove documents, and what the engine would keep of them, so that no file of it holds them any more.

        It may take as long as writing the whole index. Cut short, the same call goes on.
        """

    def count(self, query: Query) -> int:
        """How many series match."""

    def search(self, query: Query, *, sort: Sequence[SortKey] = (), limit: int = 50, after: str | None = None) -> Page:
        """A page of the documents that match, in a stable order: by ``sort``, then SeriesInstanceUID.

        Args:
            query: what to look for.
            sort: may be empty.
            limit: documents on the page, 1 to 10,000.
            after: the cursor of the page before, made with the same query and sort.

        Raises:
            InputError: the limit is out of range, or the cursor is not of this sort.
        """

    def series(self, query: Query) -> Iterator[str]:
        """The SeriesInstanceUIDs of all series that match, in ascending order, however many."""

    def facets(self, query: Query, facets: Sequence[Facet]) -> list[list[Bucket]]:
        """The buckets of each facet over the series that match; buckets without series are left out.

        A series counts once in every bucket that one of its values is in. Histograms are in
        ascending order of key.
        """

    def check(self) -> StoreReport:
        """Whether it works, in a moment; nothing is made that is not there.

        Raises:
            ConfigurationError: what answers is no such index or refuses the credentials; names the setting.
        """

    def close(self) -> None:
        """Let go of connections; the index must not be used after it."""
