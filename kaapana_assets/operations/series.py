"""Looking for series in the metadata index, and at one of them."""

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
class Found:
    """What a search found.

    Attributes:
        page: documents, and how many series match in all.
        facets: the buckets of each facet that was asked for.
        hints: for a person, where nothing matches: fields that no series has, and the nearest that some have.
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
) -> Found:
    """The series that match a query, such as ``Modality:CT AND PatientAge:[40 TO 60]``; see docs/query.md.

    Args:
        session: of the platform.
        query: its text.
        facets: what to count over all series that match.
        sort: may be empty.
        limit: documents on the page, up to 10,000; 0 only counts.
        after: the cursor of the page before.

    Raises:
        QueryError: the query cannot be read; says where.
        InputError: the limit is out of range, or the cursor is not of this sort.
        StoreUnavailable: the index does not answer.
    """
    parsed = parse(query)
    index = session.index
    page = index.search(parsed, sort=sort, limit=limit, after=after) if limit else Page((), index.count(parsed), None)
    counted = index.facets(parsed, facets) if facets else []
    hints = () if page.total else tuple(unknown_fields(parsed, index.count))
    return Found(page, tuple(map(tuple, counted)), hints)


def facet_from_text(text: str) -> Facet:
    """The facet that ``FIELD`` or ``FIELD:STEP`` names; STEP is a number, or year, month or day.

    Raises:
        InputError: the step is something else.
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
    """The order that ``FIELD`` or ``-FIELD``, descending, names; none for an empty text."""
    return (SortKey(text.removeprefix("-"), descending=text.startswith("-")),) if text else ()


def preview(session: Session, series_instance_uid: str, *, size: int = 512) -> bytes:
    """A PNG of the middle slice of a series in the PACS.

    Args:
        session: of the platform.
        series_instance_uid: the series.
        size: longest side, in pixels.

    Raises:
        InvalidIdentifier: it is no UID.
        NotFound: no such series, or it has no pixels.
        UnreadableDicom: they cannot be decoded.
        StoreUnavailable: the PACS does not answer.
    """
    settings = session.settings
    uid = checked_uid(series_instance_uid, keyword="SeriesInstanceUID")
    return preview_of_series(session.pacs, uid, size=size, scratch=settings.paths.scratch, limits=limits_of(settings))
