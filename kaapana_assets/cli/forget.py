"""``kaapana-assets forget``: removes a series, a study or a patient from everything that the platform keeps."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from kaapana_assets.cli.homes import settings_to_change

if TYPE_CHECKING:
    from pathlib import Path

    from kaapana_assets.stores.forgotten import Kind


@click.command()
@click.option("--series", metavar="UID", help="The series with this SeriesInstanceUID.")
@click.option("--study", metavar="UID", help="All series with this StudyInstanceUID.")
@click.option("--patient", metavar="ID", help="All series with this PatientID.")
@click.option("--yes", is_flag=True, help="Forget. Without it, say what would go, and remove nothing.")
@click.option("--go-on", is_flag=True, help="Only end what was cut short.")
def command(series: str | None, study: str | None, patient: str | None, yes: bool, go_on: bool) -> None:
    """Remove a series, a study or a patient from everything that the platform keeps.

    Archive, index, spool, quarantine, results, run directories, caches, Dagster's partitions and events. Cohorts
    stay, with a mark in the place of the series. What was made of it together with other series is removed, too;
    a run makes it anew without it. What was cut short before is ended first.
    """
    from kaapana_assets.errors import DagsterUnavailable
    from kaapana_assets.forgetting import forget

    given: list[tuple[Kind, str]] = []
    given += [("series", series)] if series is not None else []
    given += [("study", study)] if study is not None else []
    given += [("patient", patient)] if patient is not None else []
    if len(given) != (0 if go_on else 1):
        raise click.UsageError("give one of --series, --study and --patient, or --go-on alone")
    settings = settings_to_change()
    if yes or go_on:
        try:
            for path in forget.go_on(settings, _say):
                _tell(path)
        except DagsterUnavailable as exc:
            if go_on:
                raise
            click.echo(f"an earlier forgetting is not ended: {exc}", err=True)
    if go_on:
        return
    asked = forget.plan(settings, *given[0], now=datetime.now(timezone.utc))
    click.echo(f"{len(asked.series)} series")
    if not yes:
        for uid in asked.series:
            click.echo(f"  {uid}")
        for name, (count, unit) in forget.preview(settings, asked).items():
            click.echo(f"{name:<12} {count} {unit}")
        for names in asked.pooled:
            click.echo(f"pooled       {'/'.join(names)}")
        click.echo("nothing was removed: this is what `--yes` would remove")
        return
    _tell(forget.carry_out(settings, asked, _say))


def _say(what: str) -> None:
    click.echo(f"… {what}", err=True)


def _tell(record: Path) -> None:
    said = json.loads(record.read_bytes())
    for place, count in said["removed"].items():
        click.echo(f"{place:<12} {count}")
    for cohort in said["cohorts"]:
        click.echo(f"cohort {cohort} is marked; what was made of it as a whole was removed: run it again")
    click.echo(f"forgotten: {said['series']} series; record {record}")
    for each in said["remains"]:
        click.echo(f"REMAINS: {each}", err=True)
    if said["remains"]:
        sys.exit(1)
