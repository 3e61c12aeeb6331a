"""``kaapana-assets query``: search the metadata index and print what matches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast, get_args

import click

from kaapana_assets.cli.homes import settings_to_read
from kaapana_assets.stores.index import (
    Bucket,
    DateHistogramFacet,
    DateInterval,
    Facet,
    HistogramFacet,
    Page,
    SortKey,
    TermsFacet,
)
from kaapana_assets.stores.opening import open_index
from kaapana_assets.stores.query import parse, unknown_fields

_COLUMNS = ("SeriesInstanceUID", "Modality", "SeriesDescription", "StudyDate", "InstanceCount")
_WIDEST = 64


@click.command()
@click.argument("text", default="*")
@click.option(
    "--facet",
    "facets",
    multiple=True,
    metavar="FIELD[:STEP]",
    help="Count series by a field; STEP is a number, or year, month or day. Can be repeated.",
)
@click.option("--sort", metavar="FIELD", help="Order by a field; a '-' before it turns the order round.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(0, 10_000), help="Series to show.")
@click.option("--json", "as_json", is_flag=True, help="Print whole documents as JSON.")
def command(text: str, facets: tuple[str, ...], sort: str | None, limit: int, as_json: bool) -> None:
    """Search the metadata index for TEXT, for example "Modality:CT AND PatientAge:[40 TO 60]"."""
    query = parse(text)
    wanted = [_facet(facet) for facet in facets]
    index = open_index(settings_to_read())
    try:
        page = index.search(query, sort=_sort(sort), limit=limit) if limit else Page((), index.count(query), None)
        found = index.facets(query, wanted) if wanted else []
        hints = [] if page.total else unknown_fields(query, index.count)
    finally:
        index.close()
    if as_json:
        click.echo(_as_json(page, facets, found))
        return
    if page.documents:
        _print_table(page)
    click.echo(f"{page.total} series" + (f", {len(page.documents)} shown" if page.total > len(page.documents) else ""))
    for hint in hints:
        click.echo(hint, err=True)
    for name, buckets in zip(facets, found, strict=True):
        click.echo(f"\n{name}")
        for bucket in buckets:
            click.echo(f"  {bucket.count:>8}  {_printable(bucket.key)}")


def _facet(text: str) -> Facet:
    field, _, step = text.partition(":")
    if not step:
        return TermsFacet(field)
    if step in get_args(DateInterval):
        return DateHistogramFacet(field, cast("DateInterval", step))
    try:
        return HistogramFacet(field, float(step))
    except ValueError as exc:
        raise click.BadParameter(
            f"{text!r}: the step is a number, or year, month or day", param_hint="--facet"
        ) from exc


def _sort(text: str | None) -> tuple[SortKey, ...]:
    if not text:
        return ()
    return (SortKey(text.removeprefix("-"), descending=text.startswith("-")),)


def _as_json(page: Page, names: Sequence[str], found: Sequence[Sequence[Bucket]]) -> str:
    facets = {
        name: [{"key": bucket.key, "count": bucket.count} for bucket in buckets]
        for name, buckets in zip(names, found, strict=True)
    }
    return json.dumps(
        {"total": page.total, "documents": page.documents, "facets": facets}, ensure_ascii=False, indent=1
    )


def _print_table(page: Page) -> None:
    rows = [[_printable(document.get(column, "")) for column in _COLUMNS] for document in page.documents]
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    for row in (_COLUMNS, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _printable(value: object) -> str:
    """One line for a terminal: what came from a file must not steer it."""
    text = "".join(char if char.isprintable() else "?" for char in str(value))
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
