"""``python -m services build|up|down|status``: services for development; ``make services`` calls it.

All that belongs to them is in ``.services/`` of the checkout (or ``KAAPANA_SERVICES_HOME``): data,
logs, ``services.json`` (which processes) and ``services.env``, the settings with which the platform
uses them. Data stays when they are ended, except that of Kubernetes, which takes much and is started
only if it is named.
"""

from __future__ import annotations

# ruff: noqa: T201 - a command
import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from services.kinds import KINDS, ON_DEMAND
from services.running import Running
from services.service import Missing

HOME = Path(os.environ.get("KAAPANA_SERVICES_HOME", ".services")).absolute()
RECORD = HOME / "services.json"
SETTINGS = HOME / "services.env"
_STOP_WITHIN_S = 40


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="services", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("build", "up", "down", "status"))
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME[=PORT,...]",
        help="some of them; all if none is named, but what takes much is only started by name",
    )
    given = parser.parse_args()
    unnamed = [name for name in KINDS if given.what != "up" or name not in ON_DEMAND]
    wanted = dict(name.partition("=")[::2] for name in given.names) or dict.fromkeys(unnamed, "")
    if unknown := wanted.keys() - KINDS.keys():
        parser.error(f"no service {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    return {"build": build, "up": up, "down": down, "status": status}[given.what](wanted)


def build(wanted: dict[str, str]) -> int:
    """Make what can be made before anything is started; what the machine lacks is named."""
    missing = 0
    for name in wanted:
        began = time.monotonic()
        try:
            KINDS[name]().prepare()
        except Missing as exc:
            missing += 1
            print(f"{name} can't be made ready, it needs {exc}")
        else:
            print(f"{name} is ready to start ({time.monotonic() - began:.0f} s)", flush=True)
    return 1 if missing and os.environ.get("REQUIRE_SERVICES") == "1" else 0


def up(wanted: dict[str, str]) -> int:
    """Start what does not run yet; one that the machine lacks is named, or an error with REQUIRE_SERVICES=1."""
    record = _record()
    missing = 0
    for name, ports in wanted.items():
        if name in record:
            print(f"{name} runs already (process {record[name]['pid']})")
            continue
        try:
            running = Running(
                KINDS[name](), HOME / name, ports=[int(port) for port in ports.split(",") if port], detached=True
            )
        except Missing as exc:
            missing += 1
            print(f"{name} is left out, it needs {exc}")
            continue
        assert running.process is not None
        pid = running.process.pid
        record[name] = {
            "pid": pid,
            "started": psutil.Process(pid).create_time(),
            "ports": running.ports,
            "log": str(running.log),
            "settings": running.settings,
        }
        _write(record)
        print(f"{name} {_where(running.ports)}, log {running.log}")
        if running.plan.hint:
            print(running.plan.hint)
    print(f"settings that use them: {SETTINGS}")
    return 1 if missing and os.environ.get("REQUIRE_SERVICES") == "1" else 0


def down(wanted: dict[str, str]) -> int:
    """End those that this checkout started."""
    record = _record()
    for name in wanted.keys() & record.keys():
        process = psutil.Process(record.pop(name)["pid"])
        process.terminate()
        try:
            process.wait(_STOP_WITHIN_S)
        except psutil.TimeoutExpired:
            process.kill()
        print(f"{name} ended")
    _write(record)
    return 0


def status(wanted: dict[str, str]) -> int:
    """Say what runs."""
    record = _record()
    for name in wanted:
        print(f"{name} {_where(record[name]['ports']) if name in record else 'does not run'}")
    return 0


def _where(ports: Sequence[int]) -> str:
    return f"listens on {', '.join(map(str, ports))}" if ports else "runs"


def _record() -> dict[str, dict[str, object]]:
    """What was started here and still runs; a process id that is now another process does not count."""
    if not RECORD.exists():
        return {}
    return {name: each for name, each in json.loads(RECORD.read_text()).items() if _runs(each)}


def _runs(each: dict[str, object]) -> bool:
    try:
        process = psutil.Process(int(each["pid"]))
        return abs(process.create_time() - float(each["started"])) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _write(record: dict[str, dict[str, object]]) -> None:
    HOME.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=1))
    lines = [f"{key}={value}\n" for each in record.values() for key, value in each["settings"].items()]
    # Services of a developer's machine have passwords too.
    SETTINGS.touch(mode=0o600)
    SETTINGS.write_text("".join(lines))


if __name__ == "__main__":
    sys.exit(main())
