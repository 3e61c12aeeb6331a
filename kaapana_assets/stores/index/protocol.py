"""The metadata index: one searchable document per series, whatever engine holds it.

``dicom.documents`` makes the documents, and ``stores.query.tree`` defines what queries mean. An
implementation takes both as they are and raises only errors of this package.
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
    """Sorts by a field. Of several values the lowest counts, or the highest if descending; absent comes last."""

    field: str
    descending: bool = False


@dataclass(frozen=True)
class Page:
    """One page of the documents that match.

    Attributes:
        total: how many documents match on all pages together.
        next_cursor: pass it as ``after`` to get the next page; ``None`` on the last page.
    """

    documents: tuple[Document, ...]
    total: int
    next_cursor: str | None


@dataclass(frozen=True)
class TermsFacet:
    """The most frequent values of a field, the most frequent first; values of equal frequency are sorted."""

    field: str
    size: int = 10


@dataclass(frozen=True)
class HistogramFacet:
    """The numbers of a field in steps of ``interval``; the key of a bucket is its lower bound."""

    field: str
    interval: float


@dataclass(frozen=True)
class DateHistogramFacet:
    """The dates of a field by year, month or day; keys look like ``2020``, ``2020-06`` or ``2020-06-30``."""

    field: str
    interval: DateInterval = "month"


Facet: TypeAlias = TermsFacet | HistogramFacet | DateHistogramFacet


@dataclass(frozen=True)
class Bucket:
    """A value, or the lower bound of a step, and how many series it has."""

    key: str | int | float
    count: int


class MetadataIndex(Protocol):
    """Documents by SeriesInstanceUID, searchable by every field.

    Every method raises StoreUnavailable if the engine does not answer.
    """

    def put(self, documents: Iterable[Document]) -> None:
        """Add documents; each replaces one with the same SeriesInstanceUID. They are durable on return.

        Raises:
            InvalidIdentifier: a document has no valid SeriesInstanceUID; those before it may have been added.
        """

    def get(self, series_instance_uid: str) -> Document:
        """The document of a series.

        Raises:
            NotFound: no such series.
        """

    def delete(self, series_instance_uids: Iterable[str]) -> None:
        """Remove documents; missing ones are ignored."""

    def forget(self, series_instance_uids: Iterable[str]) -> None:
        """Remove documents so that no file of the engine holds anything of them any more.

        This may take as long as writing the whole index. After an interruption, the same call goes on.
        """

    def count(self, query: Query) -> int:
        """The number of series that match."""

    def search(self, query: Query, *, sort: Sequence[SortKey] = (), limit: int = 50, after: str | None = None) -> Page:
        """A page of the documents that match, in a stable order: by ``sort``, then SeriesInstanceUID.

        Args:
            query: selects the documents.
            sort: keys to sort by; may be empty.
            limit: documents on the page, 1 to 10,000.
            after: the cursor from the previous page of the same query and sort.

        Raises:
            InputError: the limit is out of range, or the cursor belongs to another sort.
        """

    def series(self, query: Query) -> Iterator[str]:
        """The SeriesInstanceUIDs of all series that match, in ascending order and without a limit."""

    def facets(self, query: Query, facets: Sequence[Facet]) -> list[list[Bucket]]:
        """The buckets of each facet over the series that match; buckets without series are left out.

        A series counts once in every bucket that contains one of its values. The buckets of histograms
        are in ascending order of their keys.
        """

    def check(self) -> StoreReport:
        """Check quickly that the index works; nothing that is missing is made.

        Raises:
            ConfigurationError: the server is no such index or refuses the credentials; the message names the setting.
        """

    def close(self) -> None:
        """Close all connections; the index must not be used afterwards."""
