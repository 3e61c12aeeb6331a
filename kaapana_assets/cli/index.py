"""``kaapana-assets index``: make the metadata index again, or bring it to this program's version."""

from __future__ import annotations

import sys
from datetime import datetime, timezone

import click

from kaapana_assets.settings import load_settings

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

    from kaapana_assets.stores.opening import open_index, open_pacs
    from kaapana_assets.stores.rebuild import Rebuild

    settings = load_settings()
    index = open_index(settings)
    work = Rebuild(
        pacs=open_pacs(settings),
        index=index,
        record=settings.home / "index-rebuild.txt",
        scratch=settings.home / "scratch",
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
