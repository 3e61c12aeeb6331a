"""``kaapana-assets query``: searches the metadata index and prints the matches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from kaapana_assets.cli.homes import session_to_read

if TYPE_CHECKING:
    from kaapana_assets.stores.index.protocol import Bucket, Facet, Page

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
    from kaapana_assets.operations.series import search, sort_from_text

    wanted = [_facet(facet) for facet in facets]
    with session_to_read() as session:
        found = search(session, text, facets=wanted, sort=sort_from_text(sort or ""), limit=limit)
    page = found.page
    if as_json:
        click.echo(_as_json(page, facets, found.facets))
        return
    if page.documents:
        _print_table(page)
    click.echo(f"{page.total} series" + (f", {len(page.documents)} shown" if page.total > len(page.documents) else ""))
    for hint in found.hints:
        click.echo(hint, err=True)
    for name, buckets in zip(facets, found.facets, strict=True):
        click.echo(f"\n{name}")
        for bucket in buckets:
            click.echo(f"  {bucket.count:>8}  {_printable(bucket.key)}")


def _facet(text: str) -> Facet:
    from kaapana_assets.errors import InputError
    from kaapana_assets.operations.series import facet_from_text

    try:
        return facet_from_text(text)
    except InputError as exc:
        raise click.BadParameter(str(exc), param_hint="--facet") from exc


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
    """Return a value as one line for a terminal, escaped because text from a file must not steer the terminal."""
    text = "".join(char if char.isprintable() else "?" for char in str(value))
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
