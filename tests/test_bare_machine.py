"""On a machine without any service, what needs one skips and says so; nothing fails."""

import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from kaapana_assets.settings import PROJECT_ROOT


@pytest.mark.system
def test_what_needs_a_service_skips_where_there_is_none(tmp_path):
    written = tmp_path / "outcome.xml"
    chosen = ["-p", "services.bare", "-q", "-n", "2", "--dist", "loadfile", f"--junitxml={written}", "tests"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *chosen]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    skipped = [case.find("skipped") for case in ET.parse(written).iter("testcase")]
    reasons = [found.get("message", "") for found in skipped if found is not None]
    assert sum("KAAPANA_SERVICES_NONE" in reason for reason in reasons) > 300
