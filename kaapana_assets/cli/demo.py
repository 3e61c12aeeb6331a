"""``kaapana-assets demo``: runs the whole platform on real DICOM, with the commands that a user would type."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from kaapana_assets.cli.demo_data import DemoFile, demo_files
from kaapana_assets.errors import TemporaryError
from kaapana_assets.graphql import DagsterClient
from kaapana_assets.ingest.spool import open_spool
from kaapana_assets.operations import cohorts, runs
from kaapana_assets.operations.session import Session, enter_home
from kaapana_assets.settings import Settings, load_settings
from kaapana_assets.supervision.record import running_platform, settings_in_use

COHORT = "demo-ct-mr"
QUERY = "Modality:CT OR Modality:MR"
_UP_TIMEOUT_S = 180
_INGEST_TIMEOUT_S = 180  # time without a newly ingested series
_PROGRESS_S = 10
_STUCK_S = 45  # long enough for retries of a failed series


@click.command("demo")
@click.option("--exit", "stop_after", is_flag=True, help="Stop the platform at the end instead of leaving it up.")
@click.option("--services", is_flag=True, help="Use the servers that `make services` started.")
def command(stop_after: bool, services: bool) -> None:
    """Show the whole way on real DICOM, from the network to results in Dagster's web UI."""
    stages: dict[str, float] = {}
    with _stage("platform", stages):
        started = _ensure_up(load_settings(), ["--services"] if services else [])
    settings = settings_in_use()
    for store, where in settings.stores().items():
        click.echo(f"  {store:<8} {where}")
    try:
        failed = _walk(settings, stages)
    finally:
        if stop_after and started:
            _kaapana("down")
    _tell_times(stages)
    if not (stop_after and started):
        click.echo(f"\nThe platform stays up: {settings.dagster_url}\nStop it: kaapana-assets down")
    if failed:
        click.echo(f"failed: {', '.join(failed)}", err=True)
        sys.exit(1)


def _walk(settings: Settings, stages: dict[str, float]) -> list[str]:
    client = DagsterClient(settings.dagster_url)
    with _stage("choose files", stages):
        files = demo_files()
    modalities = Counter(modality for _, modality in {(file.series_instance_uid, file.modality) for file in files})
    click.echo(
        f"{len(files)} real DICOM files in {modalities.total()} series "
        f"({', '.join(f'{count} {name}' for name, count in modalities.most_common())}) from pydicom-data and pydicom"
    )
    with _stage("send", stages), _laid_out(settings.paths.demo_outgoing, files) as outgoing:
        _kaapana("send", str(outgoing))
    with _stage("ingest", stages):
        _wait_for_ingest(settings, client, {file.series_instance_uid for file in files})
    with _stage("cohort", stages):
        with Session(settings) as session:
            # A cohort never changes: new series, or other stores, need another cohort.
            cohort = cohorts.free_name(session, COHORT, QUERY)
        _kaapana("cohort", "create", cohort, "--query", QUERY)
    failed = []
    for workflow in ("pool-study-ids", "dcm2nrrd"):
        with _stage(workflow, stages):
            _kaapana("run", workflow, "--cohort", cohort, "--batch", check=False)
    if not _show_pooled(settings, client, cohort):
        failed.append("pool-study-ids made no pooled JSON")
    if not _show_volumes(settings, client):
        failed.append("dcm2nrrd made no NRRD file")
    return failed


@contextmanager
def _laid_out(folder: Path, files: list[DemoFile]) -> Iterator[Path]:
    """Copy files into a folder for the duration of the block, and remove the folder however the block ends.

    The platform has the files once they are sent, and does not manage further copies. Copies that a killed demo left
    are removed first; ``kaapana-assets forget`` knows them too.

    Raises:
        TemporaryError: the copies cannot be removed.
    """
    with _ends_by_exit(signal.SIGTERM, signal.SIGHUP):
        _remove(folder)
        try:
            for file in files:
                place = folder / file.series_instance_uid
                place.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.path, place / f"{file.sop_instance_uid}.dcm")
            yield folder
        finally:
            _remove(folder)


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
        folder.parent.rmdir()
    except FileNotFoundError:
        return
    except OSError as exc:
        if folder.exists():
            raise TemporaryError(
                f"the copies that the demo has sent cannot be removed ({exc.strerror}: {exc.filename}): remove {folder}"
            ) from exc


@contextmanager
def _ends_by_exit(*numbers: signal.Signals) -> Iterator[None]:
    """Turn these signals into SystemExit within the block, so that clean-up code runs."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ensure_up(settings: Settings, options: list[str]) -> bool:
    if running_platform(settings.home) is not None:
        click.echo(f"using the platform that is up on {settings.home}")
        return False
    enter_home(settings)
    console = settings.paths.log("up")
    console.parent.mkdir(exist_ok=True)
    argv = ["up", *options]
    for option, host, port in (
        ("--webserver-port", settings.webserver_host, settings.webserver_port),
        ("--receiver-port", settings.receiver_host, settings.receiver_port),
        ("--health-port", settings.health_host, settings.health_port),
    ):
        if not _is_free(host, port):
            click.echo(f"port {port} is taken; {option} 0 takes a free one")
            argv += [option, "0"]
    with console.open("w") as output:
        process = subprocess.Popen(
            _command(*argv), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    _wait_for_up(process, console)
    return True


def _wait_for_up(process: subprocess.Popen[bytes], console: Path) -> None:
    shown = 0
    deadline = time.monotonic() + _UP_TIMEOUT_S
    while True:
        # Polled before reading: if the process has ended, its output is complete.
        ended = process.poll()
        lines = console.read_text().splitlines()
        for line in lines[shown:]:
            click.echo(f"  {line}")
        shown = len(lines)
        if any(line.startswith("up after") for line in lines):
            return
        if ended is not None or time.monotonic() > deadline:
            raise TemporaryError(f"the platform did not start; see {console}")
        time.sleep(0.2)


def _wait_for_ingest(settings: Settings, client: DagsterClient, wanted: set[str]) -> None:
    spool = open_spool(settings)
    began = told = moved = time.monotonic()
    left = len(wanted)
    while True:
        status = client.partition_status("series_metadata")
        missing = wanted - status.materialized
        if len(missing) < left:
            moved, left = time.monotonic(), len(missing)
        set_aside = {each.series_instance_uid: each.reason for each in spool.quarantined()}
        stuck = missing <= status.failed and time.monotonic() - moved > _STUCK_S
        if missing <= set_aside.keys() or stuck:
            there = len(wanted) - len(missing)
            click.echo(f"  {there} series in the PACS and searchable: {client.asset_url('series_metadata')}")
            for uid in sorted(missing):
                what = f"is set aside: {set_aside[uid]}" if uid in set_aside else "is refused by the PACS, and waits"
                click.echo(f"  series {uid} {what} (see `kaapana-assets status`)")
            return
        if time.monotonic() - told > _PROGRESS_S:
            told = time.monotonic()
            click.echo(f"  {told - began:5.0f} s  {len(wanted) - len(missing)} of {len(wanted)} series")
        if time.monotonic() - moved > _INGEST_TIMEOUT_S:
            raise TemporaryError(f"{len(missing)} series were not taken in: {', '.join(sorted(missing)[:5])} …")
        time.sleep(0.5)


def _show_pooled(settings: Settings, client: DagsterClient, cohort: str) -> bool:
    with Session(settings) as session:
        output = runs.output(session, "pool-study-ids", "pool-jsons", cohort)
    pooled = [] if output is None else [output.folder / file.path for file in output.manifest.files]
    click.echo("\nPooled study identifiers:")
    for path in pooled:
        click.echo(f"  {path} ({len(json.loads(path.read_text()))} entries)")
    click.echo(f"  {client.asset_url('pool_study_ids/pool_jsons', cohort)}")
    return bool(pooled)


def _show_volumes(settings: Settings, client: DagsterClient) -> bool:
    made = sorted((settings.paths.shelf / "dcm2nrrd").rglob("*.nrrd"))
    click.echo(f"\n{len(made)} NRRD volumes:")
    for path in made[:3]:
        click.echo(f"  {path} ({path.stat().st_size} bytes)")
    if len(made) > len(made[:3]):
        click.echo(f"  … and in the bucket dcm2nrrd of {settings.stores()['objects']}")
    click.echo(f"  {client.asset_url('dcm2nrrd/dcm2nrrd')}")
    status = client.partition_status("dcm2nrrd/dcm2nrrd")
    if status.failed:
        click.echo(
            f"  {len(status.failed)} series were refused or failed, as the report above says: these files are made "
            "to test readers, and not each of them is a volume that NRRD can hold"
        )
    return bool(made)


def _kaapana(*args: str, check: bool = True) -> None:
    click.echo(f"\n$ kaapana-assets {shlex.join(args)}")
    ended = subprocess.run(_command(*args), check=False, env=os.environ)
    if check and ended.returncode != 0:
        raise TemporaryError(f"kaapana-assets {args[0]} ended with exit code {ended.returncode}")


def _command(*args: str) -> list[str]:
    return [sys.executable, "-m", "kaapana_assets", *args]


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@contextmanager
def _stage(name: str, stages: dict[str, float]) -> Iterator[None]:
    click.echo(f"\n== {name}")
    began = time.monotonic()
    yield
    stages[name] = time.monotonic() - began


def _tell_times(stages: dict[str, float]) -> None:
    click.echo("\nSeconds of each stage:")
    for name, seconds in stages.items():
        click.echo(f"  {name:<16} {seconds:6.1f}")
    click.echo(f"  {'all':<16} {sum(stages.values()):6.1f}")
