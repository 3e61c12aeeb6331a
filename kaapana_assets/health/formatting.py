"""Texts of a health report, for the command line and the page."""

from __future__ import annotations

from datetime import datetime

from kaapana_assets.health.findings import HealthFinding, HealthReport

TITLES = {
    "pacs": "PACS",
    "index": "index",
    "objects": "objects",
    "runner": "runner",
    "workflows": "workflows",
    "spool": "spool",
    "receiver": "receiver",
    "storage": "PostgreSQL",
    "dagster": "Dagster",
    "parts": "parts",
}
_UNITS = ("bytes", "KB", "MB", "GB", "TB", "PB")
_KNOWN_PREFIX = "known_"
_SINGULAR = {"instances": "instance", "documents": "document", "buckets": "bucket", "restarts": "restart"}
_HIDDEN_WHEN_ZERO = frozenset({"open_series", "restarts", "left_alone"})


def headline(report: HealthReport) -> str:
    """The overall state in one line."""
    if report.broken:
        return f"{', '.join(title(name) for name in report.broken)}: not working"
    return "everything works" if report.is_up else "no failure found; no platform is up"


def title(name: str) -> str:
    """The display name of a check."""
    return TITLES.get(name, name)


def product(finding: HealthFinding) -> str:
    """The product of a finding; empty if its location already begins with it (``folder``)."""
    return "" if finding.where.startswith(f"{finding.product} ") else finding.product


def counts(finding: HealthFinding) -> str:
    """The counts of a finding: ``3 series, 41 instances, 1.2 GB, 70 GB free``."""
    parts = [_count(name, value) for name, value in finding.counts.items() if value or name not in _HIDDEN_WHEN_ZERO]
    if any(name.startswith(_KNOWN_PREFIX) for name in finding.counts):
        parts[0] = f"known here: {parts[0]}"
    return ", ".join(parts)


def size(size_bytes: float) -> str:
    """A number of bytes with a decimal unit, such as ``1.2 GB``."""
    unit = 0
    while size_bytes >= 1000 and unit < len(_UNITS) - 1:
        size_bytes /= 1000
        unit += 1
    return f"{size_bytes:.0f} {_UNITS[unit]}" if unit == 0 or size_bytes >= 10 else f"{size_bytes:.1f} {_UNITS[unit]}"


def age(seconds: float) -> str:
    """A duration in seconds, minutes, hours or days."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def local_time(time: datetime) -> str:
    """A time in the local time zone."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _count(name: str, value: float) -> str:
    name = name.removeprefix(_KNOWN_PREFIX)
    if name == "size_bytes":
        return size(value)
    if name.endswith("_bytes"):
        return f"{size(value)} {name.removesuffix('_bytes').replace('_', ' ')}"
    if name == "oldest_age_s":
        return f"the oldest for {age(value)}"
    if value == 1 and name in _SINGULAR:
        name = _SINGULAR[name]
    return f"{value:,.0f} {name.replace('_', ' ')}"
