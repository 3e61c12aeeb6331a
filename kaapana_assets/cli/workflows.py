"""``kaapana-assets workflows``: what there is to run, with its parameters."""

from __future__ import annotations

import sys

import click

from kaapana_assets.supervision.record import settings_in_use


@click.command()
def command() -> None:
    """Show the workflows with their operators and parameters, and the files that cannot be loaded."""
    from kaapana_assets.workflows.loader import load_platform_workflows

    loaded = load_platform_workflows(settings_in_use().home)
    for workflow in sorted(loaded.workflows.values(), key=lambda each: each.name):
        click.echo(f"{workflow.name}\n  {workflow.description}")
        click.echo(f"  operators: {', '.join(operator.full_name for operator in workflow.operators)}")
        for parameter in workflow.parameters:
            choices = f" (one of {', '.join(map(str, parameter.choices))})" if parameter.choices else ""
            click.echo(f"  --param {parameter.name}={parameter.default}{choices}  {parameter.description}")
    for file, reason in sorted(loaded.errors.items()):
        click.echo(f"\n{file} cannot be loaded:\n{reason}", err=True)
    sys.exit(1 if loaded.errors else 0)
