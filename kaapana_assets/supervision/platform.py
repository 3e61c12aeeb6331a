"""The supervisor: starts the platform's parts in order, watches them, and ends them with nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from kaapana_assets.accounts import check_postgres_account
from kaapana_assets.clocks import Setback, is_future
from kaapana_assets.durable import suppress_no_room
from kaapana_assets.errors import ConfigurationError, DagsterUnavailable, StoreUnavailable
from kaapana_assets.graphql import DagsterClient
from kaapana_assets.retry import Patience, repeating
from kaapana_assets.settings import Settings
from kaapana_assets.supervision import parts, record
from kaapana_assets.supervision.former import end_former, settle
from kaapana_assets.supervision.instance import LOCATION, launching, write_instance
from kaapana_assets.supervision.needs import (
    ABANDONED_RUNS,
    CODE,
    FORGETTING,
    HEALTH,
    MIGRATION,
    POSTGRES,
    RECEIVER,
    WATCHDOG,
    WEBSERVER,
    given_to,
)
from kaapana_assets.supervision.postgres import Postgres
from kaapana_assets.supervision.postgres_server import check_server, claim_database, storage_of
from kaapana_assets.supervision.processes import Part, PartFailed, PartProcess
from kaapana_assets.supervision.watchdog import Members

Say = Callable[[str], None]
_POLL_S = 0.1
# The parts need some seconds of CPU time to end, which may take half a minute on a busy machine. The sum of these
# must stay below the time that `kaapana-assets down` waits.
_GRACE_S = 25.0
_POSTGRES_GRACE_S = 15.0
_WATCHDOG_GRACE_S = 10.0
_CRASHES_KEPT = 20


class StopAsked(Exception):
    """The user asked to stop while the platform was starting."""


class PlatformSupervisor:
    """All processes of the platform on one home; the caller has made the home or checked that it is private.

    Args:
        settings: as loaded; port 0 is replaced by a free port.
        say: prints one line for the user.
        env_file: the settings file given at the start; other commands on the home read it too.
        accept_copy: the home is a copy whose original is gone, and takes over the original's databases.

    Raises:
        ConfigurationError: a port is in use, PostgreSQL would share a user, or runs cannot be executed where the
            settings say.
    """

    def __init__(
        self, settings: Settings, say: Say, *, env_file: Path | None = None, accept_copy: bool = False
    ) -> None:
        self._env_file = str(env_file.absolute()) if env_file else ""
        self._accept_copy = accept_copy
        check_postgres_account(settings)
        self.settings = parts.claim_ports(settings)
        self._launching = launching(self.settings, self.settings.paths.dagster)
        self.client = DagsterClient(self.settings.dagster_url, location=LOCATION)
        self._say = say
        self._token = uuid.uuid4().hex
        self._children: dict[str, PartProcess] = {}
        self._waiting: dict[str, float] = {}
        self._is_record_old = False
        self._crashes: deque[record.Crash] = deque(maxlen=_CRASHES_KEPT)
        self._abandoned_before: float | None = None
        self._stop = threading.Event()
        self._places = parts.Places(self.settings.home, Path())
        self._watchdog: subprocess.Popen[str] | None = None

    def run(self) -> None:
        """Start all parts, watch them until a signal asks to stop, and end them.

        Raises:
            ConfigurationError: another platform runs on this home, or a setting is invalid.
            PartFailed: a part did not start; the other parts have been ended.
        """
        with ExitStack() as stack:
            stack.enter_context(record.lock_home(self.settings.home))
            settle(self.settings, self._say, accept_copy=self._accept_copy)
            end_former(self.settings.home, self._say, grace_s=_GRACE_S)
            self._places = parts.Places(self.settings.home, Path(tempfile.mkdtemp(prefix="kaapana-")))
            stack.callback(shutil.rmtree, self._places.folder, ignore_errors=True)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                stack.callback(signal.signal, number, signal.signal(number, self._on_signal))
            self._start_watchdog()
            stack.callback(self._end)
            try:
                self._start()
            except StopAsked:
                return
            self._watch()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _start(self) -> None:
        began = time.monotonic()
        storage = self._start_storage()
        places = self._places
        write_instance(places.dagster_home, storage=storage, code_socket=places.code_socket, launching=self._launching)
        # Runs in parallel with the start of the first parts, which do not touch the storage.
        migration = self._start_migration()
        forgets = self._has_forgetting_to_end()
        if forgets:
            self._finish_migration(migration)
            self._go_on_forgetting()
        self._start_together(parts.first_parts(self._places, definitions=self.settings.definitions))
        if not forgets:
            self._finish_migration(migration)
        last = parts.dagster_parts(self.settings, self._places, self.client)
        self._start_together([*last, parts.health_part(self._places)])
        self._abandoned_before = self._children[CODE].started_at
        self._say(f"up after {time.monotonic() - began:.1f} s; Ctrl-C stops all")

    def _has_forgetting_to_end(self) -> bool:
        return any((self.settings.paths.forgotten / ".pending").glob("*.json"))

    def _go_on_forgetting(self) -> None:
        """Finish interrupted removals of series before any part can ingest or process these series."""
        self._say("going on with forgetting series")
        ended = subprocess.run(
            [sys.executable, "-m", "kaapana_assets", "forget", "--go-on"],
            env=parts.child_environment(self.settings, self._places, self._token, part=FORGETTING),
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if ended.returncode != 0:
            said = ended.stderr.strip().splitlines()[-1:]
            self._say(f"not all was forgotten, it is tried again at the next start: {''.join(said)}")

    def _start_storage(self) -> Mapping[str, Any]:
        if self.settings.postgres_url:
            self._say(f"{POSTGRES:<12} {self._wait_for_server()}")
            return storage_of(self.settings)
        data = self.settings.paths.postgres_data
        postgres = Postgres(data, self._places.postgres_socket, uid=self.settings.postgres_uid)
        self._start_together([parts.postgres_part(postgres)])
        return {"postgres_url": postgres.url}

    def _wait_for_server(self) -> str:
        """Wait for a server that may start at the same time as the platform; return its description."""
        patience = Patience(self.settings.postgres_patience_s, first_s=1.0, longest_s=1.0)

        def ask() -> str:
            if self._stop.is_set():
                raise StopAsked
            found = check_server(self.settings)
            claim_database(self.settings, accept_copy=self._accept_copy)
            return found

        def tell(error: BaseException, _pause_s: float) -> None:
            if patience.failures == 1:
                self._say(f"{error}; waiting for up to {self.settings.postgres_patience_s:.0f} s")

        again = repeating(
            patience, lambda exc: isinstance(exc, StoreUnavailable), cancelled=self._stop, before_pause=tell
        )
        try:
            return again(ask)
        except StoreUnavailable:
            if self._stop.is_set():
                raise StopAsked from None
            raise

    def _start_migration(self) -> subprocess.Popen[str]:
        log = self._places.log("migration")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "kaapana_assets.defs.storage_migration"],
                env=parts.child_environment(self.settings, self._places, self._token, part=MIGRATION),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,
            )

    def _finish_migration(self, migration: subprocess.Popen[str]) -> None:
        """Wait until Dagster's storage has been migrated to this version.

        Raises:
            ConfigurationError: it cannot be migrated.
        """
        while migration.poll() is None:
            if self._stop.wait(_POLL_S):
                raise StopAsked
        done, _ = migration.communicate()
        for line in done.splitlines():
            self._say(line)
        if migration.returncode:
            log = self._places.log("migration")
            reason = log.read_text(errors="replace").strip().rpartition("\n")[2]
            raise ConfigurationError(f"Dagster's storage cannot be used: {reason} (see {log})")

    def _date_anew(self) -> None:
        """Correct the times of Dagster's sensors after the clock was set back; otherwise they only tick later."""
        try:
            self._finish_migration(self._start_migration())
        except ConfigurationError as exc:
            self._say(str(exc))
        except StopAsked:
            return

    def _start_together(self, wanted: list[Part]) -> None:
        pending = []
        for part in wanted:
            environment = parts.child_environment(self.settings, self._places, self._token, part=part.name)
            child = PartProcess(part, environment=environment, log=self._places.log(part.name))
            self._children[part.name] = child
            self._launch(child)
            pending.append(child)
        while pending:
            for child in list(pending):
                if child.check_ready():
                    self._say(f"{child.part.name:<12} {child.runs_for_s:5.1f} s  {self._where(child)}")
                    pending.remove(child)
            if self._stop.wait(_POLL_S if pending else 0):
                raise StopAsked

    def _launch(self, child: PartProcess) -> None:
        # The watchdog learns of the group at once, so that it can end it if the supervisor is killed here.
        self._tell(f"group {child.start()}")
        self._write_record()

    def _watch(self) -> None:
        clock = Setback()
        while not self._stop.wait(_POLL_S * 3):
            if clock.was_set_back():
                self._say("the clock was set back")
                self._date_anew()
            for child in self._children.values():
                if child.pid is None:
                    if child.is_due():
                        self._restart(child)
                elif (how := child.crashed()) is not None:
                    self._bury(child, how)
                elif child.part.name in self._waiting:
                    self._await_restarted(child)
            if self._is_record_old:
                self._write_record()
            # Runs in pods continue without the platform; Dagster's own monitoring detects those that ended.
            alone = self.settings.run_launcher == "kubernetes"
            if self._abandoned_before is not None and not self._waiting and not alone:
                self._fail_abandoned_runs(before=self._abandoned_before)

    def _bury(self, child: PartProcess, how: str) -> None:
        group = child.pid
        if group is not None:
            # The children of the crashed process must be gone before the part is restarted.
            Members(frozenset({group})).end(grace_s=0)
            self._tell(f"ended {group}")
        self._note_crash(child, how)
        pause = child.forget()
        self._write_record()
        self._say(f"{child.part.name} crashed ({how}); starts again in {pause:.0f} s; see {child.log}")

    def _restart(self, child: PartProcess) -> None:
        try:
            self._launch(child)
        except (OSError, ConfigurationError) as exc:
            self._note_crash(child, f"can't be started: {exc}")
            self._say(f"{child.part.name} can't be started: {exc}; tries again in {child.forget():.0f} s")
            self._write_record()
            return
        self._waiting[child.part.name] = time.monotonic()

    def _await_restarted(self, child: PartProcess) -> None:
        name = child.part.name
        try:
            if not child.check_ready():
                return
        except PartFailed as exc:
            self._waiting.pop(name)
            self._say(str(exc).splitlines()[0])
            return
        self._say(f"{name} is back after {time.monotonic() - self._waiting.pop(name):.1f} s")
        if name == CODE:
            self._abandoned_before = child.started_at

    def _note_crash(self, child: PartProcess, how: str) -> None:
        self._crashes.append(record.Crash(child.part.name, time.time(), how, str(child.log)))

    def _fail_abandoned_runs(self, *, before: float) -> None:
        try:
            going = self.client.runs(statuses=["STARTING", "STARTED", "CANCELING"], limit=1000)
        except DagsterUnavailable:
            # A part is restarting; the next pass of `_watch` asks again.
            return
        self._abandoned_before = None
        # A run whose last update lies in the future was running before the clock was set back.
        heard = [(run.run_id, run.update_time) for run in going if run.update_time is not None]
        abandoned = [run_id for run_id, moment in heard if moment < before or is_future(moment)]
        if not abandoned:
            return
        subprocess.run(
            [sys.executable, "-m", "kaapana_assets.defs.abandoned_runs", *abandoned],
            env=parts.child_environment(self.settings, self._places, self._token, part=ABANDONED_RUNS),
            check=False,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._say(f"reported as failed, since the platform was stopped while they ran: {len(abandoned)} runs")

    def _end(self) -> None:
        began = time.monotonic()
        self._say("stopping")
        record.remove_record(self.settings.home)
        storage = self._children.pop(POSTGRES, None)
        groups = {child.pid: name for name, child in self._children.items() if child.pid is not None}
        # PostgreSQL has the mark too, but must outlive the processes that write to it.
        spared = frozenset() if storage is None or storage.pid is None else frozenset({storage.pid})
        rest = Members(frozenset(groups), self._token, except_groups=spared)
        names = {pid: groups.get(_group_of(pid), "a run or an operator") for pid in rest.living()}
        killed = [names.get(pid, "a run or an operator") for pid in rest.end(grace_s=_GRACE_S)]
        for child in self._children.values():
            child.wait(0)
        if storage is not None and storage.pid is not None:
            storage.signal(storage.part.stop_signal)
            storage.wait(_POSTGRES_GRACE_S)
            killed += [POSTGRES for _ in Members(frozenset({storage.pid}), self._token).end(grace_s=0)]
        self._end_watchdog()
        how = f", {len(killed)} processes had to be killed: {', '.join(sorted(killed))}" if killed else ""
        self._say(f"stopped after {time.monotonic() - began:.1f} s{how}")

    def _start_watchdog(self) -> None:
        self._watchdog = subprocess.Popen(
            [sys.executable, "-m", "kaapana_assets.supervision.watchdog", self._token, str(self._places.folder)],
            stdin=subprocess.PIPE,
            env=given_to(WATCHDOG, os.environ),
            start_new_session=True,
            text=True,
        )

    def _tell(self, line: str) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.write(line + "\n")
            self._watchdog.stdin.flush()

    def _end_watchdog(self) -> None:
        if self._watchdog is None:
            return
        try:
            self._watchdog.communicate("done\n", timeout=_WATCHDOG_GRACE_S)
        except subprocess.TimeoutExpired:  # it got the line, and will not act any more
            self._watchdog.kill()
            self._watchdog.wait()

    def _write_record(self) -> None:
        """Write the record of running parts into the home; if the disk is full, `_watch` tries again."""
        self._is_record_old = True
        with suppress_no_room():
            self._put_record()
            self._is_record_old = False

    def _put_record(self) -> None:
        running = {name: child.pid for name, child in self._children.items() if child.pid is not None}
        record.write_record(
            self.settings.home,
            record.PlatformRecord(
                pid=os.getpid(),
                token=self._token,
                folder=str(self._places.folder),
                webserver_host=self.settings.webserver_host,
                webserver_port=self.settings.webserver_port,
                receiver_host=self.settings.receiver_host,
                receiver_port=self.settings.receiver_port,
                receiver_ae_title=self.settings.receiver_ae_title,
                parts=running,
                env_file=self._env_file,
                stores=self.settings.stores(),
                launcher=record.launcher_of(self.settings),
                health_host=self.settings.health_host,
                health_port=self.settings.health_port,
                down=[name for name, child in self._children.items() if child.pid is None],
                restarts=sum(child.restarts for child in self._children.values()),
                crashes=list(self._crashes),
            ),
        )

    def _where(self, child: PartProcess) -> str:
        name = child.part.name
        if name == WEBSERVER:
            return self.settings.dagster_url
        if name == RECEIVER:
            host, port = self.settings.receiver_host, self.settings.receiver_port
            return f"DICOM {self.settings.receiver_ae_title} at {host}:{port}"
        if name == HEALTH:
            return self.settings.health_url
        return ""


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0
