"""Forgetting on the platform that runs, with Dagster's storage in PostgreSQL, and what is left when it does not."""

import pytest
from security.patient_home import NAME, files_with, write_dicom

pytestmark = pytest.mark.system
GONE, LATER, KEPT = "1.2.77.1", "1.2.77.2", "1.2.88.1"


def test_dagster_forgets_at_once_while_it_is_up_and_else_at_the_next_start(platforms, tmp_path):
    for series, patient in ((GONE, "one"), (LATER, "two"), (KEPT, "three")):
        write_dicom(tmp_path / "sent" / f"{series}.dcm", series=series, study=series, patient=patient)
    running = platforms.start()
    running.kaapana("import", tmp_path / "sent")
    known = lambda: running.dagster.partition_status("series_metadata").materialized  # noqa: E731
    running.wait_until(lambda: known() >= {GONE, LATER, KEPT}, 90, "ingest")
    running.kaapana("cohort", "create", "all", "--query", f"PatientName:{NAME}*")
    assert "nothing was removed" in running.kaapana("forget", "--patient", "one").stdout
    said = running.kaapana("forget", "--patient", "one", "--yes").stdout
    assert "forgotten: 1 series" in said
    found = running.dagster.partition_status("dicom_series")
    assert (found.materialized, GONE in found.missing) == ({LATER, KEPT}, False)
    running.stop()
    done = running.kaapana("forget", "--patient", "two", "--yes", check=False)
    assert done.returncode == 2
    assert "when `kaapana-assets up` starts the next time" in done.stderr
    assert files_with(running.home, LATER, but=["dagster", "forgotten", "logs"]) == []
    again = platforms.start(running.home)
    assert "going on with forgetting series" in again.said()
    assert again.dagster.partition_status("dicom_series").materialized == {KEPT}
    assert len(list((running.home / "forgotten").glob("*.json"))) == 2
    assert not list((running.home / "forgotten" / ".pending").iterdir())
