"""``kaapana-assets status``: what waits, what is stored and what went wrong."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from kaapana_assets.settings import Settings

_SHOWN = 20


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with everything.")
def command(as_json: bool) -> None:
    """Show the spool, the quarantine, the PACS, the index and whether the receiver answers."""
    from kaapana_assets.supervision.record import settings_in_use

    found = _gather(settings_in_use())
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        _show(found)


def _gather(settings: Settings) -> dict[str, Any]:
    import logging

    from kaapana_assets.errors import KaapanaAssetsError
    from kaapana_assets.ingest.spool import open_spool
    from kaapana_assets.stores.dimse import Peer, answers_echo
    from kaapana_assets.stores.opening import open_index, open_pacs
    from kaapana_assets.stores.query import All

    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    spool = open_spool(settings)
    waiting = spool.series()
    found: dict[str, Any] = {
        "home": str(settings.home),
        "spool": {
            "series": len(waiting),
            "instances": sum(each.instance_count for each in waiting),
            "size_bytes": sum(each.size_bytes for each in waiting),
            "open_series": sum(each.open for each in waiting),
            "oldest_age_s": max((time.time() - each.newest_mtime for each in waiting), default=None),
        },
        "quarantine": [
            {
                "path": str(each.path),
                "series_instance_uid": each.series_instance_uid,
                "reason": each.reason,
                "time": each.time.isoformat(),
                "origin": each.origin,
            }
            for each in spool.quarantined()
        ],
    }
    try:
        found["pacs"] = asdict(open_pacs(settings).counts())
    except KaapanaAssetsError as exc:
        found["pacs"] = {"error": str(exc)}
    try:
        found["index"] = {"series": open_index(settings).count(All())}
    except KaapanaAssetsError as exc:
        found["index"] = {"error": str(exc)}
    peer = Peer(settings.receiver_host, settings.receiver_port, settings.receiver_ae_title, _calling(settings))
    found["receiver"] = {"host": peer.host, "port": peer.port, "answers": answers_echo(peer)}
    return found


def _calling(settings: Settings) -> str:
    # The first of those that may call, else the receiver would turn us away and seem to be down.
    return next(iter(settings.allowed_calling_ae_titles), "KAAPANA_STATUS")


def _show(found: dict[str, Any]) -> None:
    spool, receiver, quarantine = found["spool"], found["receiver"], found["quarantine"]
    click.echo(f"home        {found['home']}")
    answers = "answers" if receiver["answers"] else "does not answer"
    click.echo(f"receiver    {answers} at {receiver['host']}:{receiver['port']}")
    oldest = f", the oldest for {spool['oldest_age_s']:.0f} s" if spool["oldest_age_s"] is not None else ""
    click.echo(f"spool       {spool['series']} series, {spool['instances']} instances wait{oldest}")
    for name in ("pacs", "index"):
        counts = ", ".join(f"{value} {key.replace('_', ' ')}" for key, value in found[name].items())
        click.echo(f"{name:<11} {counts}")
    click.echo(f"quarantine  {len(quarantine)} files")
    for each in quarantine[:_SHOWN]:
        click.echo(f"  {each['path']}\n    {each['reason']}")
    if len(quarantine) > _SHOWN:
        click.echo(f"  and {len(quarantine) - _SHOWN} more: status --json lists them all")
