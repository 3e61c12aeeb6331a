"""The configuration of Dagster's instance and workspace, written as files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOCATION = "kaapana_assets"


def write_instance(dagster_home: Path, *, storage: Mapping[str, Any], code_socket: Path) -> Path:
    """Write dagster.yaml and workspace.yaml into ``dagster_home``; the path of the workspace file.

    Args:
        dagster_home: made if it is not there.
        storage: the configuration of PostgreSQL, see ``postgres_server.storage_of``.
        code_socket: where the code server listens.
    """
    dagster_home.mkdir(parents=True, exist_ok=True)
    (dagster_home / "dagster.yaml").write_text(_yaml(_instance(dagster_home, storage)))
    workspace = dagster_home / "workspace.yaml"
    server = {"socket": str(code_socket), "location_name": LOCATION}
    workspace.write_text(_yaml({"load_from": [{"grpc_server": server}]}))
    return workspace


def _instance(dagster_home: Path, storage: Mapping[str, Any]) -> dict[str, Any]:
    cores = os.cpu_count() or 2
    return {
        "storage": {
            "custom": {
                "module": "kaapana_assets.patient_storage",
                "class": "PatientPostgresStorage",
                "config": dict(storage),
            }
        },
        # What the stores say while they wait is part of the run's log.
        "python_logs": {"managed_python_loggers": ["kaapana_assets"], "python_log_level": "WARNING"},
        "compute_logs": {
            "module": "dagster.core.storage.local_compute_log_manager",
            "class": "LocalComputeLogManager",
            "config": {"base_dir": str(dagster_home / "compute_logs")},
        },
        # The queue answers a launch at once and starts the run within a second; without it the
        # launch itself blocks for as long as the run's process needs to start.
        "run_queue": {
            "max_concurrent_runs": max(10, 2 * cores),
            "dequeue_interval_seconds": 1,
            "dequeue_use_threads": True,
            "dequeue_num_workers": 4,
            # A backfill of one run per partition must not keep ingest and cohorts waiting.
            "tag_concurrency_limits": [{"key": "dagster/backfill", "limit": max(2, cores)}],
        },
        "run_monitoring": {"enabled": True, "start_timeout_seconds": 180, "poll_interval_seconds": 10},
        "run_retries": {"enabled": False},
        "sensors": {"use_threads": True, "num_workers": 4},
        "backfills": {"use_threads": True, "num_workers": 2},
        "retention": {"sensor": {"purge_after_days": {"skipped": 1, "success": 30, "failure": 30}}},
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
    }


def _yaml(content: dict[str, Any]) -> str:
    # Every JSON document is YAML.
    return json.dumps(content, indent=2) + "\n"
