"""``kaapana-assets workflows``: shows the workflows with their parameters."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import click

from kaapana_assets.cli.homes import session_to_read

if TYPE_CHECKING:
    from kaapana_assets.workflows.loader import Loaded


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the state of each file as one JSON object.")
def command(as_json: bool) -> None:
    """Show the workflows with their operators and parameters, and what is wrong with workflow files.

    Ends with exit code 1 when something is wrong with a file.
    """
    from kaapana_assets.operations.workflows import load_workflows

    # Output that workflow files print while they load must not mix with the answer.
    with session_to_read() as session, redirect_stdout(sys.stderr):
        loaded = load_workflows(session)
    if as_json:
        click.echo(json.dumps(_as_json(loaded), indent=1))
    else:
        _show(loaded)
    sys.exit(1 if loaded.problems else 0)


def _show(loaded: Loaded) -> None:
    for workflow in sorted(loaded.workflows.values(), key=lambda each: each.name):
        click.echo(f"{workflow.name}\n  {workflow.description}")
        click.echo(f"  operators: {', '.join(operator.full_name for operator in workflow.operators)}")
        for parameter in workflow.parameters:
            choices = f" (one of {', '.join(map(str, parameter.choices))})" if parameter.choices else ""
            click.echo(f"  --param {parameter.name}={parameter.default}{choices}  {parameter.description}")
    for file, reason in sorted(loaded.problems.items()):
        click.echo(f"\n{file}:\n{reason}", err=True)


def _as_json(loaded: Loaded) -> dict[str, object]:
    return {
        "plan": loaded.plan.digest,
        "images": dict(loaded.plan.images),
        "files": [
            {
                "file": file.name,
                "path": str(file.path),
                "workflows": [workflow.name for workflow in file.workflows],
                "problems": list(file.problems),
            }
            for file in loaded.files
        ],
    }
