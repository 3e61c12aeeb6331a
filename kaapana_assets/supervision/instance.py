"""Writes the configuration files of Dagster's instance and workspace."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaapana_assets.durable import write_file
from kaapana_assets.settings import Settings
from kaapana_assets.supervision.run_pods import run_launcher

LOCATION = "kaapana_assets"
VARIABLES = {"DAGSTER_EVENT_BATCH_SIZE": "1000", "DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS": "1"}
"""The environment variables that Dagster reads, for all processes and for runs in pods."""

_START_S = 180


def write_instance(
    dagster_home: Path, *, storage: Mapping[str, Any], code_socket: Path, launching: Mapping[str, Any]
) -> Path:
    """Write dagster.yaml and workspace.yaml into ``dagster_home``; return the path of workspace.yaml.

    Args:
        dagster_home: created if it does not exist.
        storage: the configuration of PostgreSQL, see ``postgres_server.storage_of``.
        code_socket: the socket on which the code server listens.
        launching: the sections that the function ``launching`` returns.
    """
    write_file(dagster_home / "dagster.yaml", _yaml({**_instance(dagster_home, storage), **launching}))
    workspace = dagster_home / "workspace.yaml"
    server = {"socket": str(code_socket), "location_name": LOCATION}
    write_file(workspace, _yaml({"load_from": [{"grpc_server": server}]}))
    return workspace


def launching(settings: Settings, dagster_home: Path) -> dict[str, Any]:
    """Return the sections of dagster.yaml about the run launcher and the monitoring of runs.

    Raises:
        ConfigurationError: runs cannot be executed where the settings say.
    """
    monitoring = {"enabled": True, "start_timeout_seconds": _START_S, "poll_interval_seconds": 10}
    if settings.run_launcher == "process":
        return {"run_monitoring": monitoring}
    # A pod may wait for a node, and the node for the image. Runs are not resumed, because with
    # max_resume_run_attempts a run loads the launcher itself, and pods do not have its kubeconfig.
    monitoring["start_timeout_seconds"] = _START_S + int(settings.kubernetes_patience_s)
    return {"run_monitoring": monitoring, "run_launcher": run_launcher(settings, dagster_home, VARIABLES)}


def _instance(dagster_home: Path, storage: Mapping[str, Any]) -> dict[str, Any]:
    cores = os.cpu_count() or 2
    return {
        "storage": {
            "custom": {
                "module": "kaapana_assets.defs.storage",
                "class": "ReconnectingPostgresStorage",
                "config": dict(storage),
            }
        },
        # The stores log their waiting with Python loggers; this puts it into the run's log.
        "python_logs": {"managed_python_loggers": ["kaapana_assets"], "python_log_level": "INFO"},
        "compute_logs": {
            "module": "dagster.core.storage.local_compute_log_manager",
            "class": "LocalComputeLogManager",
            "config": {"base_dir": str(dagster_home / "compute_logs")},
        },
        # With the queue, a launch returns at once and the run starts within a second. Without it, the launch
        # blocks until the run's process has started.
        "run_queue": {
            "max_concurrent_runs": max(10, 2 * cores),
            "dequeue_interval_seconds": 1,
            "dequeue_use_threads": True,
            "dequeue_num_workers": 4,
            # A backfill with one run per partition must not block ingest and cohort runs.
            "tag_concurrency_limits": [{"key": "dagster/backfill", "limit": max(2, cores)}],
        },
        "run_retries": {"enabled": False},
        "sensors": {"use_threads": True, "num_workers": 4},
        "backfills": {"use_threads": True, "num_workers": 2},
        "retention": {"sensor": {"purge_after_days": {"skipped": 1, "success": 30, "failure": 30}}},
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
    }


def _yaml(content: dict[str, Any]) -> str:
    # JSON is a subset of YAML.
    return json.dumps(content, indent=2) + "\n"
