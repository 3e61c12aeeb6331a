"""``kaapana-assets preview``: a picture of a series, from the archive."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("series")
@click.option("--out", type=click.Path(path_type=Path), help="The PNG file to write; <SERIES>.png if it is not said.")
@click.option("--size", type=click.IntRange(16, 4096), default=512, help="Longest side, in pixels; 512.")
def command(series: str, out: Path | None, size: int) -> None:
    """Write a picture of the middle slice of SERIES, a SeriesInstanceUID, to a file.

    The platform itself stores no pictures: they show persons.
    """
    from kaapana_assets.cli.homes import settings_to_read
    from kaapana_assets.dicom.identifiers import checked_uid
    from kaapana_assets.dicom.limits import limits_of
    from kaapana_assets.errors import InputError
    from kaapana_assets.stores.opening import open_pacs
    from kaapana_assets.stores.series_preview import preview_of_series

    settings = settings_to_read()
    uid = checked_uid(series, keyword="SeriesInstanceUID")
    path = out or Path(f"{uid}.png")
    pacs = open_pacs(settings)
    picture = preview_of_series(pacs, uid, size=size, scratch=settings.home / "scratch", limits=limits_of(settings))
    pacs.close()
    try:
        path.write_bytes(picture)
    except OSError as exc:
        raise InputError(f"{path} cannot be written: {exc.strerror}") from exc
    click.echo(str(path))
