"""Who is forgotten: the one who was named, whatever their PatientID looks like, and nobody else."""

import contextlib
import os
import shutil
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest
from security.patient_home import kaapana, write_dicom

from kaapana_assets.errors import InputError, NotFound
from kaapana_assets.forgetting import forget
from kaapana_assets.home import make_home
from kaapana_assets.ingest.folder_import import import_files
from kaapana_assets.ingest.spool import open_spool
from kaapana_assets.settings import load_settings
from kaapana_assets.stores.factory import open_pacs

PATIENTS = {
    f"1.2.{number}": patient
    for number, patient in enumerate(
        [
            *("plain", "PLAIN", "A", "A\\B", "B\\A", "*", "?", "100%", "a_c", "abc", "O'Neil\" OR 1=1 --"),
            *("(x:[1 TO 2])", "1.0", "1", "AND", "Zo\u00eb", "-"),
        ],
        500,
    )
}
NOBODY = ["Plain", "a*", "%", "_", "['A', 'B']", "Zoe", "PatientID", "B", "A\\", "A\\B\\C"]
MIXED = "1.2.600"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A home that holds a series of each patient: in the archive and the index, or waiting only."""
    folder = tmp_path_factory.mktemp("choice")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("KAAPANA_", "DAGSTER_"))]:
            patch.delenv(name)
        patch.setenv("KAAPANA_HOME", str(folder / "home"))
        make_home(folder / "home")
        files = [
            write_dicom(folder / f"{series}.dcm", series=series, study=series, patient=patient)
            for series, patient in PATIENTS.items()
        ]
        for instance, patient in ((1, "first"), (2, "second")):
            path = folder / f"mixed-{instance}.dcm"
            files.append(write_dicom(path, series=MIXED, instance=instance, study=MIXED, patient=patient))
        settings = load_settings()
        waiting = [files.pop(0), files.pop(2)]
        open_pacs(settings).store(files)
        spool = open_spool(settings)
        spool.prepare()
        list(import_files(spool, waiting))
        kaapana("index", "rebuild")
        yield folder / "home"


def now() -> datetime:
    return datetime.now(timezone.utc)


def found(kind: str, value: str) -> tuple[str, ...]:
    return forget.plan(load_settings(), kind, value, now=now()).series


@pytest.mark.parametrize(("series", "patient"), PATIENTS.items(), ids=map(repr, PATIENTS.values()))
def test_a_patient_is_found_by_the_very_id(home, series, patient):
    assert found("patient", patient) == (series,)
    assert found("patient", f"  {patient} ") == (series,)


@pytest.mark.parametrize("patient", NOBODY)
def test_another_id_finds_nobody(home, patient):
    with pytest.raises(NotFound):
        found("patient", patient)


@pytest.mark.parametrize("patient", ["", "  ", "\\", " \\ "])
def test_an_empty_id_is_nobodys(home, patient):
    with pytest.raises(InputError, match="stands for many people"):
        found("patient", patient)


def test_one_instance_of_a_patient_in_a_series_of_another_is_found(home):
    """The index has the attributes of the first instance; the others' data are there as well."""
    assert found("patient", "first") == (MIXED,)
    assert found("patient", "second") == (MIXED,)


def test_a_sender_that_goes_on_does_not_stop_a_forgetting(home):
    """Its files come into the folder that is being removed."""
    settings = load_settings()
    ended = threading.Event()
    folder = home / "incoming" / "1.2.900"

    def send() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"1.2.900.{number}.dcm").write_bytes(b"")

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for _ in range(20):
            forget.carry_out(settings, forget.plan(settings, "series", "1.2.900", now=now()), lambda _: None)
    finally:
        ended.set()
        sender.join()
        shutil.rmtree(folder, ignore_errors=True)


def test_nothing_is_forgotten_in_a_home_that_others_may_enter(home):
    home.chmod(0o755)
    try:
        said = kaapana("forget", "--series", MIXED, "--yes", code=2)
    finally:
        home.chmod(0o700)
    assert "chmod 700" in said
    assert found("patient", "second") == (MIXED,)
