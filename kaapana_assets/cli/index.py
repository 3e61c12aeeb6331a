"""``kaapana-assets index``: rebuilds the metadata index, or migrates it to this program's version."""

from __future__ import annotations

import sys
from datetime import datetime, timezone

import click

from kaapana_assets.cli.homes import settings_to_change

_SHOWN_FAILURES = 20


@click.group()
def command() -> None:
    """Look after the metadata index."""


@command.command()
def rebuild() -> None:
    """Make the index again from the headers of all that is in the PACS.

    The platform may run meanwhile. Cut short, the same command goes on where it was.
    """
    from tqdm import tqdm

    from kaapana_assets.dicom.limits import limits_of
    from kaapana_assets.stores.factory import open_index, open_pacs
    from kaapana_assets.stores.index.rebuild import Rebuild

    settings = settings_to_change()
    index = open_index(settings)
    work = Rebuild(
        pacs=open_pacs(settings),
        index=index,
        record=settings.paths.index_rebuild,
        scratch=settings.paths.scratch,
        limits=limits_of(settings),
    )
    try:
        resumed = work.record.exists()
        uids = work.remaining()
        if resumed:
            click.echo(f"going on, {len(uids)} series remain")
        with tqdm(total=len(uids), desc="indexing", unit="series") as bar:
            for done in work.run(uids, now=datetime.now(timezone.utc)):
                bar.update(done)
        gone = work.finish()
    finally:
        index.close()
    click.echo(f"{len(uids) - len(work.failed)} series put, {gone} removed that the PACS does not have")
    for uid, reason in list(work.failed.items())[:_SHOWN_FAILURES]:
        click.echo(f"series {uid}: {reason}", err=True)
    if work.failed:
        click.echo(f"{len(work.failed)} series could not be read", err=True)
        sys.exit(1)


@command.command()
def migrate() -> None:
    """Bring an index on Elasticsearch to the version of this program, while the old one serves.

    Run it with the new program before the platform is started with it.
    """
    from kaapana_assets.errors import ConfigurationError
    from kaapana_assets.stores.elastic_index.migration import migrate as brought
    from kaapana_assets.stores.factory import elastic_connection

    settings = settings_to_change()
    if settings.index != "elasticsearch":
        raise ConfigurationError(
            "KAAPANA_INDEX is not elasticsearch: other indices are made again with `index rebuild`"
        )
    old = brought(elastic_connection(settings))
    click.echo("nothing to do" if old is None else f"done; the old index {old} can be deleted")
