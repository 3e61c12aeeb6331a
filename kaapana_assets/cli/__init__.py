"""The command ``kaapana-assets``; each subcommand is a module that is imported only when it is called.

A command parses its arguments, calls the package and prints the result. It has no logic of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import NoReturn

import click

from kaapana_assets import __version__
from kaapana_assets.durable import NO_ROOM, no_room
from kaapana_assets.errors import KaapanaAssetsError
from kaapana_assets.home import keep_private

_COMMANDS = {
    "backup": "Copy the home to another disk while the platform runs.",
    "clean": "Remove what runs left behind.",
    "cohort": "Freeze and show selections of series.",
    "demo": "Show the whole way on real DICOM, from the network to results.",
    "down": "Stop the platform that runs on this home.",
    "forget": "Remove a series, a study or a patient from everything.",
    "health": "Serve the health page.",
    "images": "Build the images of operators, show and push them.",
    "import": "Put the DICOM files of a folder into the spool.",
    "index": "Make the metadata index again from the PACS.",
    "preview": "Write a picture of a series to a file.",
    "query": "Search the metadata index.",
    "receive": "Receive DICOM objects over the network.",
    "restore": "Make a home from a backup.",
    "run": "Send a cohort to a workflow.",
    "runs": "Show, follow, cancel and repeat runs.",
    "send": "Send the DICOM files of a folder over the network.",
    "status": "Show what works, what waits, what is stored and what went wrong.",
    "workflows": "Show what there is to run.",
    "up": "Start the whole platform and watch over it.",
}
_MODULES = {"import": "import_folder"}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"kaapana_assets.cli.{_MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, text in sorted(_COMMANDS.items())])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kaapana-assets")
def cli() -> None:
    """Medical images at scale: DICOM in, results with lineage out."""


def main() -> None:
    """Run the command line; a user's mistake or a full disk ends it with one message and exit code 2."""
    keep_private()
    try:
        cli.main(standalone_mode=True)
    except KaapanaAssetsError as exc:
        _end(str(exc))
    except OSError as exc:
        if exc.errno not in NO_ROOM:
            raise
        _end(no_room(exc, "what the command writes"))


def _end(said: str) -> NoReturn:
    # The disk of standard error may be full as well; then only the exit code reports the error.
    with contextlib.suppress(OSError):
        click.echo(f"kaapana-assets: {said}", err=True)
    sys.exit(2)
