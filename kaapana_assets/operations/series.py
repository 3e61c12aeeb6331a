"""Searches for series in the metadata index, and makes a preview of a series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, get_args

from kaapana_assets.dicom.identifiers import checked_uid
from kaapana_assets.dicom.limits import limits_of
from kaapana_assets.errors import InputError
from kaapana_assets.operations.session import Session
from kaapana_assets.stores.index.protocol import (
    Bucket,
    DateHistogramFacet,
    DateInterval,
    Facet,
    HistogramFacet,
    Page,
    SortKey,
    TermsFacet,
)
from kaapana_assets.stores.pacs.preview import preview_of_series
from kaapana_assets.stores.query import parse, unknown_fields

EVERYTHING = "*"


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        page: the documents of this page, and the number of all matching series.
        facets: the buckets of each requested facet.
        hints: if nothing matches, messages about fields that no series has, with the nearest existing fields.
    """

    page: Page
    facets: tuple[tuple[Bucket, ...], ...]
    hints: tuple[str, ...]


def search(
    session: Session,
    query: str = EVERYTHING,
    *,
    facets: Sequence[Facet] = (),
    sort: Sequence[SortKey] = (),
    limit: int = 50,
    after: str | None = None,
) -> SearchResult:
    """Search for series by a query, such as ``Modality:CT AND PatientAge:[40 TO 60]``; see docs/query.md.

    Args:
        session: session on a home.
        query: the text of the query.
        facets: the facets to count over all matching series.
        sort: the sort order; may be empty.
        limit: documents per page, up to 10,000; 0 only counts.
        after: the cursor of the previous page.

    Raises:
        QueryError: the query cannot be parsed; says where.
        InputError: the limit is out of range, or the cursor belongs to another sort order.
        StoreUnavailable: the index does not answer.
    """
    parsed = parse(query)
    index = session.index
    page = index.search(parsed, sort=sort, limit=limit, after=after) if limit else Page((), index.count(parsed), None)
    counted = index.facets(parsed, facets) if facets else []
    hints = () if page.total else tuple(unknown_fields(parsed, index.count))
    return SearchResult(page, tuple(map(tuple, counted)), hints)


def facet_from_text(text: str) -> Facet:
    """Parse a facet, ``FIELD`` or ``FIELD:STEP``; STEP is a number, or year, month or day.

    Raises:
        InputError: the step is not one of these.
    """
    field, _, step = text.partition(":")
    if not step:
        return TermsFacet(field)
    if step in get_args(DateInterval):
        return DateHistogramFacet(field, cast("DateInterval", step))
    try:
        return HistogramFacet(field, float(step))
    except ValueError as exc:
        raise InputError(f"facet {text!r}: the step is a number, or year, month or day") from exc


def sort_from_text(text: str) -> tuple[SortKey, ...]:
    """Parse a sort order, ``FIELD`` or ``-FIELD`` for descending; an empty text means no order."""
    return (SortKey(text.removeprefix("-"), descending=text.startswith("-")),) if text else ()


def preview(session: Session, series_instance_uid: str, *, size: int = 512) -> bytes:
    """Return the middle slice of a series in the PACS as a PNG.

    Args:
        session: session on a home.
        series_instance_uid: the series.
        size: longest side of the picture, in pixels.

    Raises:
        InvalidIdentifier: the text is not a UID.
        NotFound: there is no such series, or it has no pixels.
        UnreadableDicom: the pixels cannot be decoded.
        StoreUnavailable: the PACS does not answer.
    """
    settings = session.settings
    uid = checked_uid(series_instance_uid, keyword="SeriesInstanceUID")
    return preview_of_series(session.pacs, uid, size=size, scratch=settings.paths.scratch, limits=limits_of(settings))
