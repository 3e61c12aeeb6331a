"""``kaapana-assets preview``: writes a picture of a series in the PACS."""

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
    from kaapana_assets.cli.homes import session_to_read
    from kaapana_assets.errors import InputError
    from kaapana_assets.operations.series import preview

    with session_to_read() as session:
        picture = preview(session, series, size=size)
    path = out or Path(f"{series}.png")
    try:
        path.write_bytes(picture)
    except OSError as exc:
        raise InputError(f"{path} cannot be written: {exc.strerror}") from exc
    click.echo(str(path))
