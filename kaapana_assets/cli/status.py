"""``kaapana-assets status``: shows the state of the platform's parts and stores, and the last errors."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kaapana_assets.health.findings import HealthFinding, HealthReport


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with everything.")
def command(as_json: bool) -> None:
    """Show the stores, the spool, the receiver, Dagster and the last errors.

    Ends with exit code 1 when something that should work does not. That no platform is up is no failure.
    """
    from kaapana_assets.operations.health import open_health_check
    from kaapana_assets.operations.session import settings_to_read

    report = open_health_check(settings_to_read()).report()
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=1))
    else:
        _show(report)
    if not report.ok:
        sys.exit(1)


def _show(report: HealthReport) -> None:
    from kaapana_assets.health import formatting
    from kaapana_assets.shown import shown

    click.echo(f"{'home':<11} {shown(report.home)}")
    click.echo(f"{'platform':<11} {f'up, health page at {report.health_url}' if report.is_up else 'no platform is up'}")
    for name, each in report.findings.items():
        _show_finding(formatting.title(name), each, [formatting.product(each), formatting.counts(each), each.where])
    if report.errors:
        click.echo("\nlast errors, the newest first")
    for error in report.errors:
        click.echo(f"  {formatting.local_time(error.time)}  {error.kind.value} {error.what}")
        click.echo(f"    {error.reason}\n    {error.where}")
    click.echo(f"\n{formatting.headline(report)}")


def _show_finding(title: str, finding: HealthFinding, said: Sequence[str]) -> None:
    click.echo(f"{title:<11} {finding.state.value:<7} {'; '.join(filter(None, said))}")
    if finding.problem:
        for line in finding.problem.splitlines():
            click.echo(f"{'':<19} {line}")
