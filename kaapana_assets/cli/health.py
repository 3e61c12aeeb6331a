"""``kaapana-assets health``: serves the health page."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("health")
@click.option("--host", help="Address to listen on; loopback only. [KAAPANA_HEALTH_HOST]")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one. [KAAPANA_HEALTH_PORT]"
)
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the address of the page to this file once connections are taken.",
)
def command(host: str | None, port: int | None, ready_file: Path | None) -> None:
    """Serve the health page until SIGTERM or Ctrl-C; `kaapana-assets up` does so itself.

    /health.json is the same as JSON. Both have the status 503 when something that should work does not.
    """
    from kaapana_assets.cli.homes import settings_to_read
    from kaapana_assets.health.server import CachedReport, serve
    from kaapana_assets.operations.health import open_health_check
    from kaapana_assets.settings import load_settings

    given = {"health_host": host, "health_port": port}
    listening = load_settings(**{name: value for name, value in given.items() if value is not None})
    check = open_health_check(settings_to_read())

    def on_ready(port: int) -> None:
        url = listening.model_copy(update={"health_port": port}).health_url
        click.echo(f"health page at {url}")
        if ready_file is not None:
            aside = ready_file.with_name(ready_file.name + ".new")
            aside.write_text(url + "\n")
            aside.replace(ready_file)

    serve(
        CachedReport(check.report),
        host=listening.health_host,
        port=listening.health_port,
        on_ready=on_ready,
        allowed_hosts=listening.allowed_hosts,
    )
