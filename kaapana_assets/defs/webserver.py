"""Dagster's webserver behind the checks of ``web_guard``: ``python -m kaapana_assets.defs.webserver``.

Dagster's own webserver obeys requests from any web page. This one accepts the same options and variables
(``DAGSTER_WEBSERVER_…``) and serves the same application.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl

import click
import uvicorn
from dagster import DagsterInstance
from dagster._cli.utils import assert_no_remaining_opts
from dagster._cli.workspace.cli_target import workspace_opts_to_load_target
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._utils.interrupts import setup_interrupt_handlers
from dagster._utils.log import configure_loggers
from dagster_shared.cli import WorkspaceOpts
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.cli import dagster_webserver
from dagster_webserver.version import __version__
from graphql import DocumentNode, GraphQLError, OperationDefinitionNode, OperationType, parse
from starlette.applications import Starlette
from starlette.types import Scope

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.settings import load_settings
from kaapana_assets.web_guard import Hosts, HttpRefusal, WebGuard

_DEFAULT_PORT = 3000
# Options for `dagster dev`, which starts Dagster's own webserver.
_NOT_TAKEN = ("instance_ref", "shutdown_pipe", "version")


def graphql_refusal(scope: Scope) -> HttpRefusal | None:
    """Refuse a GET that would change something: an image or a link on any page can send one.

    References: ``dagster_webserver.graphql.GraphQLServer.graphql_http_endpoint``, which executes
    whatever the parameter ``query`` says.
    """
    # Anywhere in the path, because Dagster decides what it routes to GraphQL: even a trailing line feed counts.
    if scope["type"] != "http" or scope["method"] == "POST" or "graphql" not in scope["path"]:
        return None
    parameters = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    for name, text in parameters:
        if name != "query":
            continue
        try:
            only_asks = _only_asks(parse(text))
        except (GraphQLError, RecursionError) as exc:
            return HttpRefusal(400, f"the GraphQL query cannot be read: {type(exc).__name__}")
        if not only_asks:
            return HttpRefusal(405, "a GET may only query: send a mutation by POST as application/json")
    return None


def notebook_refusal(scope: Scope) -> HttpRefusal | None:
    """Refuse to show a notebook: Dagster would show any file, and its scripts would run with this server's origin.

    A page of another site can make the browser download a notebook and then link to it here. No asset of the platform
    is a notebook.

    References: ``dagster_webserver.webserver.DagsterWebserver.download_notebook``, where nbconvert is installed.
    """
    if scope["type"] != "http" or "notebook" not in scope["path"]:
        return None
    names = {name for name, _ in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)}
    if "repoLocName" not in names:  # only an asset or run with "notebook" in its name
        return None
    return HttpRefusal(403, "notebooks are not shown: their scripts could do all that this page can; use Jupyter")


def _only_asks(document: DocumentNode) -> bool:
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    return all(node.operation is OperationType.QUERY for node in operations)


def _serve(
    *,
    host: str,
    port: int | None,
    path_prefix: str,
    db_statement_timeout: int,
    db_pool_recycle: int,
    db_pool_max_overflow: int,
    read_only: bool,
    suppress_warnings: bool,
    uvicorn_log_level: str,
    dagster_log_level: str,
    log_format: str,
    code_server_log_level: str,
    live_data_poll_rate: int,
    **workspace: object,
) -> None:
    if path_prefix and (not path_prefix.startswith("/") or path_prefix.endswith("/")):
        raise click.UsageError(f"--path-prefix {path_prefix} is not like /dagster")
    options = WorkspaceOpts.extract_from_cli_options(workspace)
    assert_no_remaining_opts(workspace)
    hosts = Hosts(host, load_settings().allowed_hosts)
    if suppress_warnings:
        os.environ["PYTHONWARNINGS"] = "ignore"
    configure_loggers(formatter=log_format, log_level=dagster_log_level.upper())
    setup_interrupt_handlers()
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(db_statement_timeout, db_pool_recycle, db_pool_max_overflow)
        with WorkspaceProcessContext(
            instance,
            version=__version__,
            read_only=read_only,
            workspace_load_target=workspace_opts_to_load_target(options),
            code_server_log_level=code_server_log_level,
        ) as context:
            app = create_app_from_workspace_process_context(
                context, path_prefix, live_data_poll_rate, lifespan=_until_cancelled
            )
            guarded = WebGuard(app, hosts, rules=(graphql_refusal, notebook_refusal))
            uvicorn.run(guarded, host=host, port=port or _DEFAULT_PORT, log_level=uvicorn_log_level)


@asynccontextmanager
async def _until_cancelled(_: Starlette) -> AsyncIterator[None]:
    try:
        yield
    except asyncio.CancelledError:
        # uvicorn cancels it when connections are still open at shutdown.
        return


command = click.Command(
    "kaapana_assets.defs.webserver",
    params=[param for param in dagster_webserver.params if param.name not in _NOT_TAKEN],
    callback=_serve,
    help="Serve Dagster's web UI and GraphQL, for this machine and KAAPANA_ALLOWED_HOSTS.",
)


def main() -> None:
    """Run the command line; an invalid setting ends it with one message and exit code 2."""
    try:
        command(auto_envvar_prefix="DAGSTER_WEBSERVER")
    except ConfigurationError as exc:
        click.echo(f"Error: {exc}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
