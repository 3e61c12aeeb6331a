"""Processes of runs, as tests look for them."""

import psutil


def is_run_worker(process: psutil.Process, run_id: str) -> bool:
    try:
        return any(run_id in str(path) for path in (f.path for f in process.open_files())) or has_argument(
            process, run_id
        )
    except psutil.Error:
        return False


def has_argument(process: psutil.Process, text: str) -> bool:
    try:
        return any(text in argument for argument in process.cmdline())
    except psutil.Error:
        return False
