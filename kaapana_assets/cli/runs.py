"""``kaapana-assets runs``: shows, follows, cancels and repeats runs, whoever started them."""

from __future__ import annotations

from datetime import datetime

import click

from kaapana_assets.cli.homes import session_to_change, session_to_read


@click.group()
def command() -> None:
    """Show, follow, cancel and repeat runs of workflows over cohorts."""


@command.command("list")
@click.option("--workflow", help="Only runs of this workflow.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="Runs to show.")
def list_runs(workflow: str | None, limit: int) -> None:
    """Show the newest runs, the newest first."""
    from kaapana_assets.operations import runs

    with session_to_read() as session:
        for run, now in runs.latest(session, workflow=workflow, limit=limit):
            when = "-" if now.start_time is None else f"{datetime.fromtimestamp(now.start_time):%Y-%m-%d %H:%M:%S}"
            click.echo(f"{run.run_id}  {when:<19}  {now.status.lower():<9}  {run.workflow.name} on {run.cohort}")


@command.command()
@click.argument("run_id", metavar="RUN")
def show(run_id: str) -> None:
    """Show what came of RUN, an id from `runs list`, which has ended."""
    from kaapana_assets.cli.run_report import show as show_result
    from kaapana_assets.operations import runs

    with session_to_change() as session:  # may complete the report of a killed run
        run = runs.find(session, run_id)
        click.echo(f"{run.workflow.name} on cohort {run.cohort}: {run.url}")
        show_result(runs.result(session, run), run, seconds=None)


@command.command()
@click.argument("run_id", metavar="RUN")
def follow(run_id: str) -> None:
    """Wait until RUN has ended, and show what came of it."""
    from kaapana_assets.cli.run_report import follow as follow_run
    from kaapana_assets.operations import runs

    with session_to_change() as session:
        run = runs.find(session, run_id)
        click.echo(f"{run.workflow.name} on cohort {run.cohort}: {run.url}")
        follow_run(session, run)


@command.command()
@click.argument("run_id", metavar="RUN")
def cancel(run_id: str) -> None:
    """End RUN and its containers; what it has put on the shelf stays there."""
    from kaapana_assets.operations import runs

    with session_to_read() as session:
        run = runs.find(session, run_id)
        runs.cancel(session, run)
        click.echo(f"{run.workflow.name} on cohort {run.cohort} is asked to end: {run.url}")


@command.command()
@click.argument("run_id", metavar="RUN")
@click.option("--no-wait", is_flag=True, help="Start it and return.")
def repeat(run_id: str, no_wait: bool) -> None:
    """Repeat what failed in RUN, and what comes after it, as a new run."""
    from kaapana_assets.cli.run_report import follow as follow_run
    from kaapana_assets.operations import runs

    with session_to_change() as session:
        run = runs.reexecute(session, runs.find(session, run_id))
        click.echo(f"{run.workflow.name} on cohort {run.cohort}: {run.url}")
        if not no_wait:
            follow_run(session, run)
